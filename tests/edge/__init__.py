"""The edge of deploy/edge: the real nginx in front of a real gateway."""
