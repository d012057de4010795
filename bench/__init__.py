"""Benchmarks: each figure of Ataa with its aim and a floor that the same run measures (`make bench`)."""
