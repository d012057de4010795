"""The two funds of a drive: zakat, and everything else that was given.

A gift is zakat where its donor declared it so (`PledgeMade.purpose`). That is frozen with the first state of
its pledge that payments reads (`tables.Payment.zakat`), and decides to which accounts its money is posted
(recording/ledger.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Fund(StrEnum):
    """What a disbursement is paid from."""

    GENERAL = "general"
    ZAKAT = "zakat"


class FundSums(NamedTuple):
    """An amount of each fund, in minor units of one currency; together they are the drive's."""

    general: int = 0
    zakat: int = 0

    @property
    def whole(self) -> int:
        """Both together."""
        return self.general + self.zakat

    def of(self, fund: Fund) -> int:
        """The amount of one fund."""
        return self.zakat if fund is Fund.ZAKAT else self.general

    def plus(self, other: FundSums) -> FundSums:
        """The sums of both, fund by fund."""
        return FundSums(self.general + other.general, self.zakat + other.zakat)

    def minus(self, other: FundSums) -> FundSums:
        """What is left of each fund."""
        return FundSums(self.general - other.general, self.zakat - other.zakat)

    def largest(self, other: FundSums) -> FundSums:
        """The larger sum of each fund."""
        return FundSums(max(self.general, other.general), max(self.zakat, other.zakat))


NO_SUMS: Final = FundSums()
