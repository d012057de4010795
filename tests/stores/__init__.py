"""What holds on both stores, for every service."""
