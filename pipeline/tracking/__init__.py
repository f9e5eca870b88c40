"""Listeners to the events that the loop emits: the console, a file, and MLflow from that file."""
