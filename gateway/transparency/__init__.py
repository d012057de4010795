"""Public logs that others can verify: signed heads, tiles, and the proof of a gift (docs/proof.md)."""
