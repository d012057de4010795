"""Admission to the processor: the queue's position and estimate, its pause, and the tickets' rate."""
