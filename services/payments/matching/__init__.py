"""Matching pools: sponsors that add to every gift, up to a cap."""
