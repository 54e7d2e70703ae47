"""``hydra/launcher=slurm``: the jobs of a sweep, or one run on several nodes, as jobs of a SLURM cluster."""
