"""This machine and process: files that are whole, signals, the watchdog, mounts, exit codes."""
