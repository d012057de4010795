"""Stripe's minor units and objects, and what they mean here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import DisputeRank, FactKind
from services.payments.stripe_objects import (
    NOT_TOLD,
    NotTaken,
    Unreadable,
    from_stripe,
    read_event,
    to_stripe,
)
from tests.payments.stripe_events import an_event, dispute, session_expired


@pytest.mark.parametrize(
    ("currency", "units", "stripes"),
    [
        ("USD", 2_500, 2_500),
        ("JPY", 500, 500),
        ("ISK", 500, 50_000),
        ("UGX", 500, 50_000),
        ("MGA", 500, 5),
        ("KWD", 10_120, 10_120),
    ],
)
def test_amounts_are_converted_where_stripe_counts_otherwise(currency: str, units: int, stripes: int) -> None:
    assert to_stripe(units, currency) == stripes
    assert from_stripe(stripes, currency) == units


@pytest.mark.parametrize(("units", "currency"), [(10_001, "KWD"), (501, "MGA"), (100_000_000, "USD")])
def test_amounts_stripe_does_not_take_are_refused(units: int, currency: str) -> None:
    with pytest.raises(NotTaken):
        to_stripe(units, currency)


def test_a_fraction_iso_does_not_know_is_refused() -> None:
    with pytest.raises(NotTaken):
        from_stripe(50_050, "ISK")


@given(st.integers(1, 999_999), st.sampled_from(["USD", "JPY", "ISK", "UGX", "EUR", "SAR"]))
def test_whatever_is_taken_comes_back_the_same(units: int, currency: str) -> None:
    assert from_stripe(to_stripe(units, currency), currency) == units


def test_an_unpaid_session_is_no_capture_yet() -> None:
    thing = {"id": "cs_1", "payment_intent": "pi_1", "payment_status": "unpaid", "currency": "usd"}
    assert read_event(an_event("checkout.session.completed", thing)).finding is None


def test_an_ended_session_is_a_fact_of_its_own() -> None:
    finding = read_event(session_expired("cs_1", {"ataa_payment": "pay_1"})).finding
    assert finding is not None
    assert (finding.id, finding.kind, finding.payment_id) == ("cs_1", FactKind.ENDED, "pay_1")


def test_an_inquiry_is_no_dispute_yet() -> None:
    finding = read_event(dispute("created", "dp_1", "pi_1", 100, "warning_needs_response")).finding
    assert finding is not None
    assert finding.rank == DisputeRank.INQUIRY


def test_a_refunded_charge_only_prompts_a_read() -> None:
    thing = {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 700, "currency": "usd"}
    reading = read_event(an_event("charge.refunded", thing))
    assert (reading.finding, reading.refunds_of, reading.refunded) == (None, "pi_1", 700)


def test_a_refunded_charge_in_an_unknown_currency_prompts_a_read_too() -> None:
    thing = {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 700, "currency": "zzz"}
    reading = read_event(an_event("charge.refunded", thing))
    assert (reading.finding, reading.refunds_of, reading.refunded) == (None, "pi_1", NOT_TOLD)


def test_an_expanded_intent_is_read_by_its_id() -> None:
    told = dispute("created", "dp_1", "pi_1", 100, "needs_response")
    told["data"]["object"]["payment_intent"] = {"id": "pi_1", "object": "payment_intent"}
    finding = read_event(told).finding
    assert finding is not None
    assert finding.intent == "pi_1"


def test_what_lacks_a_field_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        read_event(an_event("payment_intent.succeeded", {"id": "pi_1", "currency": "usd"}))
