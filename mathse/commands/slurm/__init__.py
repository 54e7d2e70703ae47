"""``hydra/launcher=slurm``: run the jobs of a sweep, or one run on several nodes, on a SLURM cluster."""
