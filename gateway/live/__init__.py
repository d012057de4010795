"""Live reads: the newest totals of every drive, held in memory, and the live streams of their clients."""
