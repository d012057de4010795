"""The processing fee that donors may add to their gift, as the settings state it.

The form adds it to the amount before the pledge is made: the pledge's amount is the sum. `static/fee.js`
computes the sum in whole minor units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backbone.stripe_amounts import step

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
