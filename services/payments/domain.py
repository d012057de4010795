"""The rules of payments, without I/O: facts about money, what they say, what may be refunded.

A payment is a set of facts. Merging two tellings of a fact is commutative, associative and
idempotent, and the state is a pure function of the merged facts; so every order and repetition of
webhooks ends the same (ARCHITECTURE.md, "Facts, not positions").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final

from backbone.contracts.payments import PaymentStatus
from backbone.ids import DriveId

NO_DRIVE: Final = DriveId("drv_" + "0" * 26)
"""Stands for the drive of money whose drive nobody named: it is held."""


class FactKind(StrEnum):
    """What sort of thing happened."""

    CAPTURE = "capture"
    REFUND = "refund"
    DISPUTE = "dispute"
    ENDED = "ended"


class CaptureRank(IntEnum):
    """Who told the amount: the payment intent's own word outranks its session's."""

    BY_SESSION = 1
    BY_INTENT = 2


class RefundRank(IntEnum):
    """A refund's life; one that succeeded may still fail (docs.stripe.com/refunds#failed-refunds)."""

    PENDING = 1
    SUCCEEDED = 2
    FAILED = 3


class DisputeRank(IntEnum):
    """A dispute's life; an inquiry moves no money yet."""

    INQUIRY = 1
    OPEN = 2
    LOST = 3
    WON = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact as one message told it.

    `id` is Stripe's (`pi_ re_ dp_ cs_`), `units` ISO minor units, `rank` one of the ranks above
    (0 for an ended session). The ids of ours are what the metadata said.
    """

    id: str
    kind: FactKind
    intent: str | None
    units: int
    currency: str
    rank: int
    at: datetime
    payment_id: str | None = None
    pledge_id: str | None = None
    drive_id: str | None = None
    refund_id: str | None = None


def merge(one: Finding, other: Finding) -> Finding:
    """Both tellings of a fact as one: the higher rank's amount, the earlier moment, every id known."""
    low, high = sorted((one, other), key=_precedence)
    return replace(
        high,
        at=min(one.at, other.at),
        intent=high.intent or low.intent,
        payment_id=high.payment_id or low.payment_id,
        pledge_id=high.pledge_id or low.pledge_id,
        drive_id=high.drive_id or low.drive_id,
        refund_id=high.refund_id or low.refund_id,
    )


def _precedence(finding: Finding) -> tuple[int, int, str, str, str]:
    """A total order of tellings of one fact, so that merging does not depend on who came first."""
    return (
        finding.rank, finding.units, finding.payment_id or "", finding.pledge_id or "", finding.drive_id or ""
    )  # fmt: skip


def merged(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings by id, each told once."""
    found: dict[str, Finding] = {}
    for finding in findings:
        known = found.get(finding.id)
        found[finding.id] = finding if known is None else merge(known, finding)
    return found


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """The sums of a payment's facts, in minor units of the currency that was captured."""

    captured: int = 0
    refunded: int = 0
    disputed: int = 0
    ended: bool = False

    @property
    def left(self) -> int:
        """What may still be refunded, as far as the facts know."""
        return self.captured - self.refunded


def counts(finding: Finding) -> int:
    """How much of a fact's amount counts at present: nothing of a failed refund or a won dispute."""
    match finding.kind:
        case FactKind.REFUND:
            return 0 if finding.rank == RefundRank.FAILED else finding.units
        case FactKind.DISPUTE:
            return finding.units if finding.rank in (DisputeRank.OPEN, DisputeRank.LOST) else 0
        case FactKind.CAPTURE:
            return finding.units
        case FactKind.ENDED:
            return 0


def sum_up(findings: Iterable[Finding], *, ended: bool) -> PaymentFacts:
    """The facts of one payment, added up. Before its capture is known, nothing else counts."""
    sums = dict.fromkeys(FactKind, 0)
    for finding in findings:
        sums[finding.kind] += counts(finding)
    if not sums[FactKind.CAPTURE]:
        return PaymentFacts(ended=ended)
    return PaymentFacts(sums[FactKind.CAPTURE], sums[FactKind.REFUND], sums[FactKind.DISPUTE], ended)


def status(facts: PaymentFacts) -> PaymentStatus:
    """What the facts say, in whatever order they came.

    A fact never unhappens: a capture after the session ended is still a capture (bank debits settle
    late), and a repeated fact changes nothing.
    """
    if facts.disputed:
        return PaymentStatus.DISPUTED
    if facts.captured:
        if facts.refunded >= facts.captured:
            return PaymentStatus.REFUNDED
        return PaymentStatus.PARTLY_REFUNDED if facts.refunded else PaymentStatus.CAPTURED
    return PaymentStatus.LAPSED if facts.ended else PaymentStatus.AWAITED


def is_held(paid: str | None, promised: str | None, drive: str | None) -> bool:
    """Whether captured money matches nothing it could be counted for.

    `paid` is the currency captured (None: nothing was), `promised` the pledge's (None: no pledge is
    known), `drive` the drive's (None: the drive is unknown).
    """
    if paid is None:
        return False
    return drive != paid or (promised is not None and promised != paid)
