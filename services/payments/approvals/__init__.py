"""Decisions by two API keys: one records what is to be decided about, another approves it."""
