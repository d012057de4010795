"""Live reads: the newest totals of every drive in memory, and the streams of those who watch."""
