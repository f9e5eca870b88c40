"""Training on a SLURM cluster.

On the login node `submit` queues a run, `follow` prints the progress of its job, `cancellation`
ends it, and `watch` looks after jobs that wait or stall. On the batch node `supervise` starts
attempts, restarts them inside the job and requeues the job. `records` are the files that both sides
share, and `api` is SLURM itself.
"""
