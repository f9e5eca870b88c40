"""File formats: archives, image headers, tables."""
