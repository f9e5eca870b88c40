"""Handles queued jobs from outside, when a job cannot help itself."""
