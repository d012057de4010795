"""Gifts past the processor: money by bank or in cash, which is counted once approved, and hours and goods."""
