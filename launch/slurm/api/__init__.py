"""SLURM's own commands, and what they say of jobs, nodes and partitions."""
