"""Listeners to the events that the loop emits: the console, a file, and MLflow from that file.

events: what happens; jsonl, console: who hears it; sidecar starts the process mlflow, in which
shipper brings what spool reads from the file to a store.
"""
