"""The services: each owns its data, its doors and nothing else."""
