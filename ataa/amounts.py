"""Amounts as they are printed."""

from __future__ import annotations

from backbone.money import decimal_string


def amount(minor_units: int, currency: str) -> str:
    """`25.00 USD`."""
    return f"{decimal_string(minor_units, currency)} {currency}"
