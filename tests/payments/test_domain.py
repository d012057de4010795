"""Facts: any order and repetition of observations gives the same result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from backbone.contracts.payments import PaymentStatus
from backbone.money import Money
from services.payments.domain import (
    MIXED,
    CaptureRank,
    DisputeRank,
    EstimateReason,
    FactKind,
    Observation,
    PaymentFacts,
    RefundRank,
    counts,
    estimate_reason,
    held_reason,
    merge,
    status,
    sum_up,
    tally,
)

AT = datetime(2022, 1, 7, tzinfo=UTC)


def a_refund(rank: RefundRank, units: int = 100) -> Observation:
    return Observation("re_1", FactKind.REFUND, "pi_1", units, "USD", rank, AT)


def a_dispute(rank: DisputeRank) -> Observation:
    return Observation("dp_1", FactKind.DISPUTE, "pi_1", 100, "USD", rank, AT)


def seconds(most: int) -> st.SearchStrategy[datetime]:
    return st.integers(0, most).map(lambda each: AT + timedelta(seconds=each))


CURRENCIES = st.sampled_from(["USD", "EUR", "ZZZ"])
SOME = st.integers(0, 3).map(lambda each: each * 50)


@st.composite
def refunds(draw: st.DrawFn, name: str = "re_1") -> Observation:
    return Observation(
        name, FactKind.REFUND, "pi_1", draw(SOME), draw(CURRENCIES), draw(st.sampled_from(RefundRank)),
        draw(seconds(3)), refund_id=draw(st.sampled_from([None, "rfd_1", "rfd_2"])),
    )  # fmt: skip


@st.composite
def disputes(draw: st.DrawFn, name: str = "dp_1") -> Observation:
    withdrawn = draw(st.none() | SOME.filter(bool))
    return Observation(
        name, FactKind.DISPUTE, "pi_1", draw(SOME), draw(CURRENCIES), draw(st.sampled_from(DisputeRank)),
        draw(seconds(3)), told_at=draw(seconds(2)), withdrawn=withdrawn,
        returned=None if withdrawn is None else min(draw(SOME), withdrawn),
        settled_in=None if withdrawn is None else draw(st.sampled_from(["USD", "EUR", MIXED])),
    )  # fmt: skip


@st.composite
def captures(draw: st.DrawFn) -> Observation:
    ours = st.sampled_from([None, "a", "b"])
    return Observation(
        "pi_1", FactKind.CAPTURE, "pi_1", draw(SOME), "USD", draw(st.sampled_from(CaptureRank)),
        draw(seconds(3)), payment_id=draw(ours), pledge_id=draw(ours), drive_id=draw(ours),
    )  # fmt: skip


TELLINGS = st.one_of(*(st.lists(kind(), min_size=1, max_size=6) for kind in (captures, refunds, disputes)))
"""Several observations of one fact, in any of its statuses."""


@given(TELLINGS, st.randoms())
def test_merging_observations_is_independent_of_their_order(told: list[Observation], dice: object) -> None:
    shuffled = list(told)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reduce(merge, told) == reduce(merge, shuffled)
    assert reduce(merge, told + told) == reduce(merge, told)


@given(TELLINGS, st.integers(0, 6))
def test_merging_is_associative(told: list[Observation], place: int) -> None:
    """Merging two merged groups equals merging all at once."""
    heaps = [heap for heap in (told[:place], told[place:]) if heap]
    assert reduce(merge, [reduce(merge, heap) for heap in heaps]) == reduce(merge, told)


@given(st.lists(disputes(), min_size=1, max_size=6))
def test_the_latest_dispute_status_takes_precedence(told: list[Observation]) -> None:
    found = reduce(merge, told)
    last = max(each.told_at for each in told if each.told_at is not None)
    latest = [each for each in told if each.told_at == last]
    assert found.told_at == last
    assert found.moved == max(each.moved for each in latest)
    assert found.rank in {each.rank for each in latest if each.moved == found.moved}


@given(captures(), refunds(), refunds("re_2"), disputes(), disputes("dp_2"), st.randoms())
def test_amounts_follow_the_balance_and_estimates_never_exceed_what_is_left(
    capture: Observation,
    one: Observation,
    two: Observation,
    first: Observation,
    second: Observation,
    dice: object,
) -> None:
    facts = [capture, one, two, first, second]
    counted = tally(facts)
    dice.shuffle(facts)  # type: ignore[attr-defined]
    assert tally(facts) == counted
    assert all(units >= 0 for units in counted.values())
    net = counted["pi_1"] - sum(units for each, units in counted.items() if each != "pi_1")
    by_balance = [each for each in (first, second) if each.settled_in == "USD"]
    for each in by_balance:
        assert counted[each.id] == (each.withdrawn or 0) - (each.returned or 0)
        assert estimate_reason(each, "USD", net) in (
            None,
            EstimateReason.UNKNOWN_STATUS,
            EstimateReason.NOT_RETURNED,
        )
    published = {each.id for each in by_balance} | {
        each.id for each in (one, two) if each.currency == "USD" or each.rank == RefundRank.FAILED
    }
    left = capture.units - sum(counted[each] for each in published)
    estimated = sum(units for each, units in counted.items() if each not in published and each != "pi_1")
    assert estimated <= max(0, left)
    sums = sum_up(facts, ended=False)
    assert sums.captured - sums.refunded - sums.disputed >= min(0, left)


def test_the_intents_amount_takes_precedence_over_its_sessions() -> None:
    by_session = Observation("pi_1", FactKind.CAPTURE, "pi_1", 999, "USD", CaptureRank.BY_SESSION, AT)
    by_intent = Observation("pi_1", FactKind.CAPTURE, "pi_1", 1_000, "USD", CaptureRank.BY_INTENT, AT)
    assert merge(by_session, by_intent).units == merge(by_intent, by_session).units == 1_000


def test_a_refund_counts_from_pending_until_it_fails() -> None:
    found = {rank: counts(a_refund(rank)) for rank in RefundRank}
    assert found == {
        RefundRank.UNKNOWN: 100,
        RefundRank.PENDING: 100,
        RefundRank.SUCCEEDED: 100,
        RefundRank.FAILED: 0,
    }


def test_a_dispute_counts_while_open_or_lost_and_an_inquiry_never() -> None:
    found = {rank: counts(a_dispute(rank)) for rank in DisputeRank}
    assert found == {
        DisputeRank.INQUIRY: 0,
        DisputeRank.OPEN: 100,
        DisputeRank.LOST: 100,
        DisputeRank.WON: 0,
        DisputeRank.UNKNOWN: 100,
    }


def test_nothing_counts_before_the_capture_is_known() -> None:
    assert sum_up([a_refund(RefundRank.SUCCEEDED)], ended=False) == PaymentFacts()


def test_every_status_follows_from_facts() -> None:
    assert status(PaymentFacts()) is PaymentStatus.AWAITED
    assert status(PaymentFacts(ended=True)) is PaymentStatus.LAPSED
    assert status(PaymentFacts(100)) is PaymentStatus.CAPTURED
    assert status(PaymentFacts(100, ended=True)) is PaymentStatus.CAPTURED
    assert status(PaymentFacts(100, refunded=40)) is PaymentStatus.PARTLY_REFUNDED
    assert status(PaymentFacts(100, refunded=100)) is PaymentStatus.REFUNDED
    assert status(PaymentFacts(100, refunded=40, disputed=60)) is PaymentStatus.DISPUTED


def test_money_is_held_unless_drive_and_pledge_agree_with_it() -> None:
    paid, euros = Money(2_500, "USD"), Money(2_500, "EUR")
    assert held_reason(None, paid, None) is None
    assert held_reason(paid, paid, "USD") is None
    assert held_reason(paid, None, "USD") is None  # an unknown pledge of a known drive counts
    assert held_reason(paid, None, None) == "unknown_drive"
    assert held_reason(paid, euros, "USD") == "other_currency"
    assert held_reason(paid, paid, "EUR") == "other_currency"
    assert held_reason(paid, Money(2_501, "USD"), "USD") == "other_amount"
    assert held_reason(paid, Money(2_499, "USD"), "USD") == "other_amount"


def test_released_money_is_held_only_where_its_drive_cannot_count_it() -> None:
    paid = Money(2_500, "USD")
    for pledged in (None, Money(1, "USD"), Money(2_500, "EUR")):
        assert held_reason(paid, pledged, "USD", released=True) is None
        assert held_reason(paid, pledged, "EUR", released=True) == "other_currency"
        assert held_reason(paid, pledged, None, released=True) == "unknown_drive"
