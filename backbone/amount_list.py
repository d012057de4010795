"""Amounts by currency, as settings write them: `0.30 USD, 0.25 EUR`."""

from __future__ import annotations

from collections.abc import Mapping

from backbone import money
from backbone.stripe_amounts import SUPPORTED_CURRENCIES


def amounts_by_currency(text: str) -> Mapping[str, int]:
    """Minor units by currency from a text such as `0.30 USD, 0.25 EUR`; raises ValueError."""
    parts: dict[str, int] = {}
    for one in filter(None, map(str.strip, text.split(","))):
        value, _, currency = one.partition(" ")
        if currency not in SUPPORTED_CURRENCIES or currency in parts:
            raise ValueError("must be amounts such as 0.30 USD, 0.25 EUR, each currency once")
        try:
            parts[currency] = money.parse(value, currency)
        except money.MoneyError:
            digits = money.digits(currency)
            raise ValueError(f"{currency} is written with exactly {digits} digits after the point") from None
    return parts


def check_amounts(text: str) -> str:
    """The text itself, for settings; raises ValueError."""
    amounts_by_currency(text)
    return text
