"""This machine and this process.

durable writes files that are complete or absent; locks locks files; signals and watchdog end a
process early; exit_codes says how it ended; command is what all programs share; extras reports
missing libraries; progress prints the progress of long copies; mounts looks at file systems.
"""
