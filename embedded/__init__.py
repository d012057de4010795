"""Ataa in one process: all services on SQLite and the SQLite bus, with the Stripe sandbox as a child process.

Owns: composition, and the data directory with its lock, keys, secrets and ports.
"""
