"""From a configuration to a job in the queue."""
