"""Refunds past a threshold: one key asks for them, another key decides."""
