"""Overload: how it is measured, and what gives way under it, step by step; the donate path is the last."""
