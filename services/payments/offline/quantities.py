"""Quantities of hours and goods: decimal strings outside, whole thousandths inside."""

from __future__ import annotations

from typing import Final

PLACES: Final = 3
SCALE: Final = 10**PLACES
PATTERN: Final = rf"(0|[1-9][0-9]{{0,8}})(\.[0-9]{{1,{PLACES}}})?"
"""Up to 9 digits before the point: 9,000,000 of the largest add up within a 64-bit integer."""


def thousandths(quantity: str) -> int:
    """The thousandths of a text of the form `PATTERN`."""
    whole, _, part = quantity.partition(".")
    return int(whole) * SCALE + int(part.ljust(PLACES, "0"))


def decimal(quantity: int) -> str:
    """The decimal string of thousandths, without trailing zeros: "12.5"."""
    whole, part = divmod(quantity, SCALE)
    digits = f"{part:0{PLACES}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
