"""The services: each owns its data and its routes, and nothing else."""
