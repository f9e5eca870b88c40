"""Training on a SLURM cluster.

On the login node: `cluster` knows what there is, `snapshot` keeps the code, `submission` queues. On
the batch node `supervisor` starts attempts, one after another, and `verdict` says what follows from
how they ended; on every node `rank` becomes one rank of an attempt.
"""
