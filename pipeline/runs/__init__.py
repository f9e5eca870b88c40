"""A run as a folder: found, held, fenced off, described and summed up."""
