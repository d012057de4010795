"""The error for a missing requirement of the stack."""

from __future__ import annotations


class MissingRequirement(Exception):
    """A program or file is missing on this machine; the message names it and how to get it."""
