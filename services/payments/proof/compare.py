"""What payments and leaderboard know about one payment, compared. Without I/O.

Rows, facts and postings are read in one snapshot, so any difference among them is one. Leaderboard's row is
compared only where it has the same version: another version is in transit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from services.payments.proof.figures import OwnFigures

COUNTED_IN: Final = ("captured", "refunded", "disputed")


class CountedPayment(NamedTuple):
    """A payment as leaderboard stores it. Amounts are in minor units of `currency`."""

    payment_id: str
    drive_id: str
    version: int
    currency: str
    counted: bool
    captured: int
    refunded: int
    disputed: int
    reporting_net: int | None = None
    """What it adds to the drive's sums where it is `counted`; None from an earlier version."""

    @property
    def net(self) -> int:
        """Captured less refunded and disputed."""
        return self.captured - self.refunded - self.disputed


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that two sources state differently; `figures` is what each of them states.

    `payment` is None for what belongs to no single one. `minor_units` is how much money the figures are
    apart, 0 where they are none.
    """

    payment: str | None
    what: str
    figures: Mapping[str, str | int | None]
    currency: str | None = None
    minor_units: int = 0


class Transit(Enum):
    """How the versions of a payment compare at payments and leaderboard."""

    ARRIVED = "arrived"
    ON_ITS_WAY = "on its way"
    AHEAD = "ahead"
    """Leaderboard has a version that payments has not: payments was read earlier, or lost it."""


def transit(own: OwnFigures, counted: CountedPayment | None) -> Transit:
    """Whether leaderboard has counted this state of a payment; a payment without money needs no row."""
    if counted is None:
        return Transit.ARRIVED if not own.has_money else Transit.ON_ITS_WAY
    if counted.version == own.version:
        return Transit.ARRIVED
    return Transit.ON_ITS_WAY if counted.version < own.version else Transit.AHEAD


def in_own_books(own: OwnFigures) -> list[Difference]:
    """The differences among a payment's row, its facts and its postings, and their exchange rates."""
    stored, facts, posted, expected = own.stored, own.by_facts, own.posted, own.expected
    found = [*_posted_elsewhere(own), *_own_reporting(own)]
    if stored == facts and posted == expected:
        return found
    apart = own.held or own.offline  # posted to accounts that do not tell captures from refunds
    for name in COUNTED_IN:
        figures = {"payments": getattr(stored, name), "facts": getattr(facts, name)}
        found += _differing(own, name, figures if apart else figures | {"ledger": getattr(posted, name)})
    for name, what in _POSTED_AS.items():
        figures = {"payments": getattr(expected, name), "ledger": getattr(posted, name)}
        found += _differing(own, what, figures) if apart or name not in COUNTED_IN else []
    return found


_POSTED_AS: Final = {
    "captured": "counted", "refunded": "returned", "disputed": "disputed and counted", "held": "held",
    "processor": "processor money", "offline": "offline money", "elsewhere": "money in another currency",
    "other_fund": "money in the accounts of the other fund",
}  # fmt: skip


def _posted_elsewhere(own: OwnFigures) -> Iterator[Difference]:
    """What is posted as counted at another rate than the payment's, or in another drive.

    What was posted in another drive, or there at its rate, and reversed, is no difference.
    """
    for each in own.strays:
        if each.drive != own.drive:
            figures = {"payments": own.drive, "ledger": each.drive}
            yield Difference(own.payment, "drive of postings", figures, own.currency, abs(each.amounts.net))
        elif each.rate != own.rate:
            figures = {"payments": own.rate, "ledger": each.rate}
            yield Difference(own.payment, "exchange rate", figures, own.reporting_currency)


def _own_reporting(own: OwnFigures) -> list[Difference]:
    """Whether row, facts and postings give the same amount in the drive's currency."""
    if own.held or (own.rate is None and not own.strays):
        return []  # in the drive's currency: its amounts are compared
    figures = {
        "payments": own.reporting_net,
        "facts": own.reporting_by_facts,
        "ledger": own.reporting_by_ledger,
    }
    apart = max(figures.values()) - min(figures.values())
    return (
        [Difference(own.payment, "reporting amount", figures, own.reporting_currency, apart)] if apart else []
    )


def with_leaderboard(own: OwnFigures, counted: CountedPayment) -> list[Difference]:
    """The differences between a payment and leaderboard's row of the same version."""
    found = _reporting(own, counted)
    if (own.drive, own.currency, not own.held, *own.stored) == counted[1:2] + counted[3:8]:
        return found
    for name in COUNTED_IN:
        figures = {"payments": getattr(own.stored, name), "leaderboard": getattr(counted, name)}
        found += _differing(own, name, figures)
    for what, mine, theirs in (
        ("drive", own.drive, counted.drive_id),
        ("currency", own.currency, counted.currency),
        ("held", own.held, not counted.counted),
    ):
        if mine != theirs and own.has_money:
            figures = {"payments": str(mine), "leaderboard": str(theirs)}
            found.append(Difference(own.payment, what, figures, own.currency, abs(own.net)))
    return found


def _reporting(own: OwnFigures, counted: CountedPayment) -> list[Difference]:
    """Whether payments and leaderboard agree on what it counts as in its drive's currency."""
    if own.held or not counted.counted or counted.reporting_net is None:
        return []
    if own.rate is None and counted.reporting_net == counted.net:
        return []  # in the drive's currency: its amounts are compared
    figures = {"payments": own.reporting_net, "leaderboard": counted.reporting_net}
    apart = abs(own.reporting_net - counted.reporting_net)
    return (
        [Difference(own.payment, "reporting amount", figures, own.reporting_currency, apart)] if apart else []
    )


def _differing(own: OwnFigures, what: str, figures: Mapping[str, int]) -> list[Difference]:
    apart = max(figures.values()) - min(figures.values())
    return [Difference(own.payment, what, figures, own.currency, apart)] if apart else []


def lost(own: OwnFigures, counted: CountedPayment | None) -> Difference:
    """The difference of a payment whose newest state leaderboard has not counted, and should have."""
    figures = {"payments": own.version, "leaderboard": counted.version if counted else None}
    apart = abs(own.net - (counted.net if counted else 0)) or abs(own.net)
    return Difference(own.payment, "version", figures, own.currency, apart)


def unknown(counted: CountedPayment) -> Difference:
    """The difference of a payment that leaderboard counts and payments does not have."""
    figures = {"payments": None, "leaderboard": counted.net}
    return Difference(counted.payment_id, "payment", figures, counted.currency, abs(counted.net))
