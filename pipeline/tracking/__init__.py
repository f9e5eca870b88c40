"""What a run reports, and to whom: the console, a file, and MLflow from that file.

events are what happens; tracker passes each to console, jsonl and sidecar. sidecar starts the
process ship, in which uploader sends the file to MLflow: spool says what to send and how much was
sent, mlflow_client sends it to the store at store_uri. server starts MLflow's own server.
"""
