"""The rules of payments, without I/O: facts about money, and the status and amounts they imply.

A payment is a set of facts. Merging two observations of a fact is commutative, associative and
idempotent, and the state is a pure function of the merged facts. So every order and repetition of
webhooks gives the same result (docs/architecture.md, "Facts, not positions").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

from backbone.contracts.payments import PaymentStatus
from backbone.ids import DriveId
from backbone.money import Money

NO_DRIVE: Final = DriveId("drv_" + "0" * 26)
"""The drive of money that names no drive; the money is posted to the suspense account."""


class FactKind(StrEnum):
    """What a fact is: a capture, a refund, a dispute, or a checkout session that ended unpaid."""

    CAPTURE = "capture"
    REFUND = "refund"
    DISPUTE = "dispute"
    ENDED = "ended"


class CaptureRank(IntEnum):
    """Which object reported the amount: the payment intent takes precedence over its checkout session."""

    BY_SESSION = 1
    BY_INTENT = 2


class RefundRank(IntEnum):
    """A refund's status, in order. A succeeded one may still fail (docs.stripe.com/refunds#failed-refunds).

    UNKNOWN is a status this version does not know, or null. It counts like a pending refund until
    another observation names a status.
    """

    UNKNOWN = 0
    PENDING = 1
    SUCCEEDED = 2
    FAILED = 3


class DisputeRank(IntEnum):
    """What a dispute's status means for its money. The numbers are stored; they are not an order.

    UNKNOWN is a status this version does not know. It counts like an open dispute.
    """

    INQUIRY = 1
    OPEN = 2
    LOST = 3
    WON = 4
    UNKNOWN = 5


_GONE: Final = frozenset((DisputeRank.OPEN, DisputeRank.LOST, DisputeRank.UNKNOWN))
"""Statuses under which the disputed money was withdrawn, or may have been."""

_WITHIN_A_SECOND: Final = (
    DisputeRank.INQUIRY, DisputeRank.OPEN, DisputeRank.WON, DisputeRank.UNKNOWN, DisputeRank.LOST
)  # fmt: skip
"""Precedence of statuses within one second, lowest first: a dispute opens before it closes, and of two
outcomes the one that keeps the money out of the total takes precedence."""

MIXED: Final = "mixed"
"""The currency of balance transactions whose amounts cannot be added up."""


class EstimateReason(StrEnum):
    """Why the amount counted for a fact is an estimate, or differs from what the status implies."""

    UNKNOWN_STATUS = "unknown_status"
    OTHER_CURRENCY = "other_currency"
    SAME_SECOND = "same_second"
    NOT_RETURNED = "not_returned"


@dataclass(frozen=True, slots=True)
class Observation:
    """One fact as one event or API response reports it.

    `id` is Stripe's (`pi_ re_ dp_ cs_`), `units` are ISO minor units, `rank` is one of the ranks above
    (0 for an ended session). `payment_id`, `pledge_id`, `drive_id` and `refund_id` come from the metadata.

    The other fields are set for disputes only. `told_at` is the time of the report: the event's
    `created`, or the time of the API response. `withdrawn` and `returned` are the sums of the dispute's
    negative and positive balance transactions, without fees, in minor units of `settled_in`; None
    without any. `torn` is set when Stripe reported two outcomes in the same second. `due_at` is
    the end of the time for evidence; None where none is due.
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
    told_at: datetime | None = None
    withdrawn: int | None = None
    returned: int | None = None
    settled_in: str | None = None
    torn: bool = False
    due_at: datetime | None = None

    @property
    def moved(self) -> int:
        """Withdrawn plus returned. Balance transactions are only ever added, so the larger sum is later."""
        return (self.withdrawn or 0) + (self.returned or 0)


class ReferenceProblem(StrEnum):
    """Why money paid through a Payment Link counts for the link's drive without a pledge."""

    MISSING = "missing"
    BAD = "bad"
    REUSED = "reused"


@dataclass(frozen=True, slots=True)
class LinkCapture(Observation):
    """A capture through one of our Payment Links, whose key is `link`.

    Only the link's Checkout Session carries the donor's `reference`: `by_session` is whether this observation
    was read from it, or completed by it. The reference decides the pledge (recording/link_captures.py);
    `problem` is why it names none.
    """

    link: str = ""
    reference: str | None = None
    by_session: bool = False
    problem: ReferenceProblem | None = None


def merge(one: Observation, other: Observation) -> Observation:
    """Merge two observations of a fact; commutative, associative and idempotent.

    Of captures and refunds, the higher rank takes precedence. Disputes have no such order, since a won
    dispute may be lost later: the observation reported later takes precedence, within one second the
    one with more balance transactions, then the order of `_WITHIN_A_SECOND`. The earliest `at` and
    every known id are kept.
    """
    low, high = sorted((one, other), key=_precedence)
    return replace(
        high,
        at=min(one.at, other.at),
        intent=_known(one.intent, other.intent),
        payment_id=_known(one.payment_id, other.payment_id),
        pledge_id=_known(one.pledge_id, other.pledge_id),
        drive_id=_known(one.drive_id, other.drive_id),
        refund_id=_known(one.refund_id, other.refund_id),
        torn=high.torn or (high.kind is FactKind.DISPUTE and _is_torn(low, high)),
    )


_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


def _precedence(observation: Observation) -> tuple[Any, ...]:
    """A total order of the observations of one fact, so that merging does not depend on their order."""
    rank = observation.rank
    if observation.kind is FactKind.DISPUTE:
        rank = _WITHIN_A_SECOND.index(DisputeRank(rank))
    return (
        observation.told_at or _EARLIEST, observation.moved, rank, observation.units, observation.currency,
        observation.withdrawn or 0, observation.settled_in or "", observation.due_at or _EARLIEST,
    )  # fmt: skip


def _known(one: str | None, other: str | None) -> str | None:
    return max(one or "", other or "") or None


def _is_torn(low: Observation, high: Observation) -> bool:
    """Whether two observations of one second contradict each other, or `low` carries a contradiction."""
    if (low.told_at, low.moved) != (high.told_at, high.moved):
        return False
    outcomes = (DisputeRank.UNKNOWN, DisputeRank.LOST)
    return low.torn or (low.rank == DisputeRank.WON and high.rank in outcomes)


def merged(observations: Iterable[Observation]) -> dict[str, Observation]:
    """Observations by fact id, merged."""
    found: dict[str, Observation] = {}
    for observation in observations:
        known = found.get(observation.id)
        found[observation.id] = observation if known is None else merge(known, observation)
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
        """Captured less refunded: the most that may still be refunded."""
        return self.captured - self.refunded


def counts(observation: Observation) -> int:
    """How much of a fact's own amount counts by its status: 0 for a failed refund or a won dispute.

    The amount a dispute subtracts depends on the payment's other facts too; see `tally`.
    """
    match observation.kind:
        case FactKind.REFUND:
            return 0 if observation.rank == RefundRank.FAILED else observation.units
        case FactKind.DISPUTE:
            return observation.units if observation.rank in _GONE else 0
        case FactKind.CAPTURE:
            return observation.units
        case FactKind.ENDED:
            return 0


def tally(observations: Iterable[Observation]) -> dict[str, int]:
    """How much of each fact of one payment counts, by Stripe's id, in the captured currency.

    Exact amounts exist for captures, refunds in the captured currency, and disputes whose balance
    transactions are in that currency. Such a dispute counts withdrawn less returned: a dispute over
    25.00 that is lost after a refund of 10.00 counts 15.00 (support.stripe.com/questions/
    dispute-for-full-charge-amount-after-a-partial-refund-was-issued). Stripe may withdraw more than is
    left; the net is then negative, as the balance is.

    The other amounts are estimated from what the exact amounts leave of the capture, and together
    never exceed it: a dispute in the captured currency counts its own amount, anything in another
    currency all that is left. Empty before the capture is known.
    """
    facts = sorted(observations, key=lambda each: (each.kind, each.at, each.id))
    capture = next((each for each in facts if each.kind is FactKind.CAPTURE), None)
    if capture is None:
        return {}
    exact = {each.id: _exact(each, capture.currency) for each in facts}
    counted = {each: units for each, units in exact.items() if units is not None}
    taken = sum(counted.values()) - capture.units
    left = max(0, capture.units - taken)
    for fact in facts:
        if fact.id not in counted:
            foreign = fact.currency != capture.currency
            counted[fact.id] = left if foreign else min(fact.units, left)
            left -= counted[fact.id]
    return counted


def _exact(observation: Observation, currency: str) -> int | None:
    """What counts of a fact, independent of other facts; None where it has to be estimated."""
    if observation.kind is FactKind.DISPUTE:
        by_balance = _by_balance(observation, currency)
        return by_balance if by_balance is not None or _is_out(observation) else 0
    units = counts(observation)
    return units if observation.currency == currency or not units else None


def _by_balance(dispute: Observation, currency: str) -> int | None:
    """A dispute's amount by its balance transactions; None where they do not give one in `currency`.

    Equal sums withdrawn and returned are 0 in any currency that can be added up. Other amounts in the
    account's settlement currency are not converted: the exchange rate of the day is not the
    donation's (docs.stripe.com/currencies/disputes-refunds).
    """
    if dispute.withdrawn is None or dispute.returned is None or dispute.settled_in == MIXED:
        return None
    if dispute.settled_in == currency or dispute.withdrawn == dispute.returned:
        return max(0, dispute.withdrawn - dispute.returned)
    return None


def _is_out(dispute: Observation) -> bool:
    """Whether the status means that the money is withdrawn, or it was withdrawn and not returned yet."""
    return dispute.rank in _GONE or (bool(dispute.withdrawn) and not dispute.returned)


def estimate_reason(observation: Observation, currency: str, net: int) -> EstimateReason | None:
    """Why the amount counted for a refund or dispute of money captured in `currency` is an estimate.

    None where Stripe reported the amount. `net` is what is left of the payment; where it is negative
    and a dispute is lost, the refunded part has not been returned yet. Stripe is asked about every
    estimate (reconciliation/lookups.py).
    """
    if observation.kind is FactKind.REFUND:
        if observation.rank == RefundRank.UNKNOWN:
            return EstimateReason.UNKNOWN_STATUS
        return EstimateReason.OTHER_CURRENCY if _exact(observation, currency) is None else None
    if observation.kind is not FactKind.DISPUTE:
        return None
    if observation.rank == DisputeRank.UNKNOWN:
        return EstimateReason.UNKNOWN_STATUS
    by_balance = _by_balance(observation, currency)
    if observation.rank == DisputeRank.WON and (_is_out(observation) if by_balance is None else by_balance):
        return EstimateReason.NOT_RETURNED
    if observation.rank == DisputeRank.LOST and by_balance and not observation.returned and net < 0:
        return EstimateReason.NOT_RETURNED
    if by_balance is not None:
        return None
    if observation.torn:
        return EstimateReason.SAME_SECOND
    converted = observation.currency != currency or bool(observation.returned)
    return EstimateReason.OTHER_CURRENCY if _is_out(observation) and converted else None


def sum_up(observations: Iterable[Observation], *, ended: bool) -> PaymentFacts:
    """The sums of one payment's facts. Before the capture is known, they are 0."""
    facts = {each.id: each for each in observations}
    sums = dict.fromkeys(FactKind, 0)
    for each, units in tally(facts.values()).items():
        sums[facts[each].kind] += units
    return PaymentFacts(sums[FactKind.CAPTURE], sums[FactKind.REFUND], sums[FactKind.DISPUTE], ended)


def status(facts: PaymentFacts) -> PaymentStatus:
    """The status the facts imply, independent of the order they arrived in.

    Facts are never retracted: a capture after the session ended is still a capture (bank debits settle
    late), and a repeated fact changes nothing.
    """
    if facts.disputed:
        return PaymentStatus.DISPUTED
    if facts.captured:
        if facts.refunded >= facts.captured:
            return PaymentStatus.REFUNDED
        return PaymentStatus.PARTLY_REFUNDED if facts.refunded else PaymentStatus.CAPTURED
    return PaymentStatus.LAPSED if facts.ended else PaymentStatus.AWAITED


class HeldReason(StrEnum):
    """Why captured money is in the suspense account until a person decides."""

    UNKNOWN_DRIVE = "unknown_drive"
    OTHER_CURRENCY = "other_currency"
    OTHER_AMOUNT = "other_amount"
    SUSPECTED_CARD_TESTING = "suspected_card_testing"
    NO_RATE = "no_exchange_rate"


def held_reason(
    paid: Money | None,
    pledged: Money | None,
    drive: str | None,
    *,
    released: bool = False,
    suspected: bool = False,
    others: Collection[str] = (),
    has_rate: bool = False,
) -> HeldReason | None:
    """Why captured money belongs in the suspense account; None where it counts, or nothing was captured.

    `paid` is the capture, `pledged` what its pledge promised (None: unknown pledge), `drive` the drive's
    currency (None: unknown drive). Each capture of a pledge is compared with the pledge, so that the order
    in which captures arrive does not matter. Where a person `released` the money, neither the pledge matters
    nor that it was `suspected` of card testing. Money in one of the `others`, which the drive takes besides
    its own currency, counts where it `has_rate`.
    """
    if paid is None:
        return None
    if drive is None:
        return HeldReason.UNKNOWN_DRIVE
    promised = None if released else pledged
    if paid.currency not in (drive, *others):
        return HeldReason.OTHER_CURRENCY
    if promised is not None and promised.currency != paid.currency:
        return HeldReason.OTHER_CURRENCY
    if promised is not None and promised != paid:
        return HeldReason.OTHER_AMOUNT
    if suspected and not released:
        return HeldReason.SUSPECTED_CARD_TESTING
    return None if paid.currency == drive or has_rate else HeldReason.NO_RATE
