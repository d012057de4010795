"""The processing fee that donors may add to their gift, as the settings state it.

The form adds it to the amount before the pledge is made: the pledge's amount is the sum. `static/fee.js`
computes the sum in whole minor units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backbone import money
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, step

MOST_BPS: Final = 2_000


@dataclass(frozen=True, slots=True)
class FeeRule:
    """A fee of `bps` ten-thousandths of what is charged, plus a fixed part in minor units by currency."""

    bps: int
    fixed: Mapping[str, int]

    def of(self, currency: str) -> Mapping[str, int] | None:
        """What the form needs for a currency; None where the form does not offer to add a fee."""
        if self.bps == 0:
            return None
        return {"bps": self.bps, "fixed": self.fixed.get(currency, 0), "step": step(currency)}


def fixed_parts(text: str) -> Mapping[str, int]:
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
