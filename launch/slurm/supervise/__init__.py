"""The batch side of a job: starts attempts, reads how they ended, restarts or requeues."""
