"""What a dataset looks like, in figures and as a picture."""
