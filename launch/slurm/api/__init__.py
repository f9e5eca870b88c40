"""SLURM's own commands, and what they report about jobs, nodes and partitions."""
