"""The state of runs, for people: one in detail, many in a table."""
