"""Facts: told in any order and as often as they like, they say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from backbone.contracts.payments import PaymentStatus
from services.payments.domain import (
    CaptureRank,
    DisputeRank,
    FactKind,
    Finding,
    PaymentFacts,
    RefundRank,
    counts,
    is_held,
    merge,
    status,
    sum_up,
)

AT = datetime(2022, 1, 7, tzinfo=UTC)


def a_refund(rank: RefundRank, units: int = 100) -> Finding:
    return Finding("re_1", FactKind.REFUND, "pi_1", units, "USD", rank, AT)


def a_dispute(rank: DisputeRank) -> Finding:
    return Finding("dp_1", FactKind.DISPUTE, "pi_1", 100, "USD", rank, AT)


@st.composite
def tellings(draw: st.DrawFn) -> list[Finding]:
    """Several tellings of one refund, at any point of its life."""
    return [
        Finding(
            "re_1",
            FactKind.REFUND,
            "pi_1",
            100,
            "USD",
            draw(st.sampled_from(RefundRank)),
            AT + timedelta(seconds=draw(st.integers(0, 3))),
            refund_id=draw(st.sampled_from([None, "rfd_1"])),
        )
        for _ in range(draw(st.integers(1, 6)))
    ]


@given(tellings(), st.randoms())
def test_tellings_of_a_fact_merge_to_the_same_in_any_order(told: list[Finding], dice: object) -> None:
    shuffled = list(told)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert reduce(merge, told) == reduce(merge, shuffled)
    assert reduce(merge, told + told) == reduce(merge, told)


def test_the_intents_own_amount_outranks_its_sessions() -> None:
    by_session = Finding("pi_1", FactKind.CAPTURE, "pi_1", 999, "USD", CaptureRank.BY_SESSION, AT)
    by_intent = Finding("pi_1", FactKind.CAPTURE, "pi_1", 1_000, "USD", CaptureRank.BY_INTENT, AT)
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


def test_money_is_held_unless_drive_and_pledge_agree_with_its_currency() -> None:
    assert not is_held(None, "USD", None)
    assert not is_held("USD", "USD", "USD")
    assert not is_held("USD", None, "USD")  # an unknown pledge of a known drive counts
    assert is_held("USD", None, None)
    assert is_held("USD", "EUR", "USD")
    assert is_held("USD", "USD", "EUR")
