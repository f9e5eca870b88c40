"""Runs as they stand, for people: one in detail, many in a table."""
