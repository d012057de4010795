"""Merkle trees of public logs, which leaderboard keeps and the gateway verifies before it signs."""
