"""What a submission and its attempts leave on disk."""
