"""How far an audit has come, as JSON: the caller of a step keeps it, so no step takes long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from services.payments.proof.compare import Difference

MAX_DIFFERENCES: Final = 1_000
"""Differences that are named; more are counted."""
MAX_IN_TRANSIT: Final = 5_000
"""Payments in transit that are looked at again; an audit with more is not settled."""

Stage = Literal["payments", "log", "sums", "transit", "done"]


class NamedDifference(BaseModel):
    """A difference that an audit found; see `compare.Difference`."""

    payment: str | None
    what: str
    figures: dict[str, int | str | None]
    currency: str | None
    minor_units: int


@dataclass(slots=True)
class Sums:
    """Sums of the payments compared, in minor units of one currency.

    `ledger` and `processor` contain held money, `totals` does not. `difference` is by how much the sources
    are apart, added up over the payments and sums that differ, so that two differences never cancel out.
    """

    ledger: int = 0
    processor: int = 0
    totals: int = 0
    held: int = 0
    difference: int = 0


class Log(BaseModel):
    """How far the drive's log was computed again, and how long it was then."""

    epoch: int = 0
    sequence: int = 0
    hash: str = ""
    raised: int = 0
    length: int = 0
    verified: bool = True


class AuditState(BaseModel):
    """An audit of a drive: where it is, and what it found so far.

    `payments` were compared of about `expected`; `in_transit` names those that leaderboard has not counted
    yet, `rounds` how often they were looked at again.
    """

    drive: str
    currency: str
    as_of: datetime
    stage: Stage = "payments"
    after: str = ""
    payments: int = 0
    expected: int = 0
    sums: dict[str, Sums] = {}
    differences: Annotated[list[NamedDifference], Field(max_length=MAX_DIFFERENCES)] = []
    found: int = 0
    in_transit: Annotated[list[str], Field(max_length=MAX_IN_TRANSIT)] = []
    more_in_transit: int = 0
    rounds: int = 0
    log: Log = Log()

    def of(self, currency: str | None) -> Sums:
        """The sums in a currency; those of the drive's currency where there is none."""
        return self.sums.setdefault(currency or self.currency, Sums())

    def note(self, difference: Difference) -> None:
        """Count a difference, and name it while there is room."""
        self.found += 1
        self.of(difference.currency).difference += difference.minor_units
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(
                NamedDifference(
                    payment=difference.payment,
                    what=difference.what,
                    figures=dict(difference.figures),
                    currency=difference.currency,
                    minor_units=difference.minor_units,
                )
            )

    def note_in_transit(self, payment: str) -> None:
        """Remember a payment that is in transit, to look at it again."""
        if len(self.in_transit) < MAX_IN_TRANSIT:
            self.in_transit.append(payment)
        else:
            self.more_in_transit += 1

    @property
    def settled(self) -> bool:
        """Whether every payment was compared with leaderboard's row of the same version."""
        return self.stage == "done" and not self.in_transit and not self.more_in_transit

    @property
    def progress(self) -> float:
        """The share that is done, 0 to 1; payments and log rows take about equally long."""
        done, whole = self.payments + self.log.sequence, max(self.expected + self.log.length, 1)
        return 1.0 if self.stage == "done" else min(done / whole, 0.99)
