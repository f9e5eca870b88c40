"""A run as a folder.

folder creates and locks it; fence keeps earlier attempts from writing to it; find and holder look
up runs and their processes; provenance, summary and result describe a run.
"""
