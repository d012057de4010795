"""What the stack cannot do without, said plainly, with the way to get it."""

from __future__ import annotations


class MissingRequirement(Exception):
    """Something is not on this machine; the message says what, and how to get it."""
