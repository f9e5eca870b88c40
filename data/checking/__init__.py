"""What is wrong with a dataset: found, reported and left out."""
