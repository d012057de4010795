"""Stripe's objects and events, and the observations they give."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.payments.domain import DisputeRank, FactKind
from services.payments.stripe.events import read_event
from services.payments.stripe.objects import NOT_REPORTED, Unreadable
from tests.payments.stripe_events import an_event, dispute, session_expired


def test_an_unpaid_session_is_no_capture_yet() -> None:
    thing = {"id": "cs_1", "payment_intent": "pi_1", "payment_status": "unpaid", "currency": "usd"}
    assert read_event(an_event("checkout.session.completed", thing)).observation is None


def test_an_ended_session_is_a_fact_of_its_own() -> None:
    observation = read_event(session_expired("cs_1", {"ataa_payment": "pay_1"})).observation
    assert observation is not None
    assert (observation.id, observation.kind, observation.payment_id) == ("cs_1", FactKind.ENDED, "pay_1")


def test_an_inquiry_counts_nothing() -> None:
    observation = read_event(dispute("created", "dp_1", "pi_1", 100, "warning_needs_response")).observation
    assert observation is not None
    assert observation.rank == DisputeRank.INQUIRY


def test_a_refunded_charge_reports_no_fact_but_reads_the_refunds() -> None:
    thing = {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 700, "currency": "usd"}
    reading = read_event(an_event("charge.refunded", thing))
    assert (reading.observation, reading.refunds_of, reading.refunded) == (None, "pi_1", 700)


def test_a_refunded_charge_in_an_unknown_currency_reads_the_refunds_too() -> None:
    thing = {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 700, "currency": "zzz"}
    reading = read_event(an_event("charge.refunded", thing))
    assert (reading.observation, reading.refunds_of, reading.refunded) == (None, "pi_1", NOT_REPORTED)


def test_an_expanded_intent_is_read_by_its_id() -> None:
    told = dispute("created", "dp_1", "pi_1", 100, "needs_response")
    told["data"]["object"]["payment_intent"] = {"id": "pi_1", "object": "payment_intent"}
    observation = read_event(told).observation
    assert observation is not None
    assert observation.intent == "pi_1"


def test_an_object_that_lacks_a_field_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        read_event(an_event("payment_intent.succeeded", {"id": "pi_1", "currency": "usd"}))


@pytest.mark.parametrize(
    ("status", "details", "due_at"),
    [
        ("needs_response", {"due_by": 1_800_000_000, "submission_count": 0}, 1_800_000_000),
        ("warning_needs_response", {"due_by": 1_800_000_000, "submission_count": 0}, 1_800_000_000),
        ("needs_response", {"due_by": 1_800_000_000, "submission_count": 1}, None),
        ("under_review", {"due_by": 1_800_000_000, "submission_count": 0}, None),
        ("needs_response", {"due_by": None}, None),
        ("needs_response", {"due_by": "soon"}, None),
        ("needs_response", {"due_by": 10**18}, None),
        ("needs_response", None, None),
    ],
)
def test_evidence_is_due_while_a_dispute_waits_for_it(
    status: str, details: object, due_at: int | None
) -> None:
    told = dispute("created", "dp_1", "pi_1", 100, status)
    told["data"]["object"]["evidence_details"] = details
    observation = read_event(told).observation
    assert observation is not None
    assert observation.due_at == (None if due_at is None else datetime.fromtimestamp(due_at, UTC))
