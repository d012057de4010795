"""Clients as groups of addresses, known by a keyed hash only, and those that payments has refused."""
