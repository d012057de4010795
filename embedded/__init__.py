"""The whole of Ataa in one process: SQLite, the durable SQLite bus, and the Stripe sandbox beside it.

Owns: composition, the data directory with its lock, keys, secrets and ports.
"""
