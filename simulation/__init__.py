"""Seeded, deterministic runs of the whole embedded system on a virtual clock, with injected faults.

`python -m simulation --seed 4711` replays one seed and prints its trace; `make simulate` runs many. What is
simulated and what is not: docs/simulation.md.
"""
