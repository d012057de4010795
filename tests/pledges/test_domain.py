"""The rules of drives and pledges, without I/O."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.contracts.payments import PaymentStatus, pledge_status
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.money import Money, parse
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, from_stripe, largest, smallest, step, to_stripe
from services.pledges.domain import (
    TRANSITIONS,
    AmountTooLarge,
    AmountTooSmall,
    CurrencyNotAccepted,
    DriveClosed,
    DrivePaused,
    DriveTransition,
    IllegalTransition,
    InvalidField,
    PledgeSecrets,
    check_accepts_pledges,
    check_amount,
    current_status,
    localized,
    next_state,
)


def test_transition_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(DriveState)
    assert all(set(moves) == set(DriveTransition) for moves in TRANSITIONS.values())


@given(st.lists(st.sampled_from(DriveTransition)))
def test_repeated_transition_changes_nothing_and_closed_is_final(moves: list[DriveTransition]) -> None:
    state = DriveState.DRAFT
    for what in moves:
        try:
            after = next_state(state, what)
        except IllegalTransition:
            continue
        assert next_state(after, what) is after
        assert state is not DriveState.CLOSED or after is DriveState.CLOSED
        assert after is not DriveState.DRAFT
        state = after


def test_only_live_drives_accept_pledges() -> None:
    check_accepts_pledges("live")
    for state, problem in (("draft", DriveClosed), ("closed", DriveClosed), ("paused", DrivePaused)):
        with pytest.raises(problem):
            check_accepts_pledges(state)


@given(st.lists(st.sampled_from(PaymentStatus), max_size=4))
def test_pledge_status_is_independent_of_the_order_of_payments(payments: list[PaymentStatus]) -> None:
    announced = {pledge_status(order) for order in itertools.permutations(payments)}
    assert len(announced) == 1
    assert {pledge_status(payments + payments)} == announced


def test_pledge_has_the_best_status_of_its_payments_unless_one_is_disputed() -> None:
    captured, refunded, lapsed = PaymentStatus.CAPTURED, PaymentStatus.REFUNDED, PaymentStatus.LAPSED
    assert pledge_status([]) is PledgeStatus.OPEN
    assert pledge_status([PaymentStatus.AWAITED]) is PledgeStatus.OPEN
    assert pledge_status([lapsed]) is PledgeStatus.LAPSED
    assert pledge_status([lapsed, captured]) is PledgeStatus.PAID
    assert pledge_status([captured, refunded]) is PledgeStatus.PAID
    assert pledge_status([refunded, lapsed]) is PledgeStatus.REFUNDED
    assert pledge_status([captured, PaymentStatus.DISPUTED]) is PledgeStatus.DISPUTED


@given(st.lists(st.sampled_from(PaymentStatus), max_size=3))
def test_cancelled_pledge_stays_cancelled_until_a_payment_arrives(payments: list[PaymentStatus]) -> None:
    money = pledge_status(payments) not in (PledgeStatus.OPEN, PledgeStatus.LAPSED)
    announced = current_status(payments, cancelled=True)
    assert announced is (pledge_status(payments) if money else PledgeStatus.CANCELLED)
    assert current_status(payments, cancelled=False) is pledge_status(payments)


@pytest.mark.parametrize(
    ("currency", "most", "one_more"),
    [
        ("USD", "999999.99", "1000000.00"),
        ("JPY", "99999999", "100000000"),
        ("KWD", "99999.990", "100000.000"),
        ("UGX", "999999", "1000000"),
        ("ISK", "999999", "1000000"),
        ("IDR", "9999999999.99", "10000000000.00"),
    ],
)
def test_amount_over_stripes_cap_is_too_large(currency: str, most: str, one_more: str) -> None:
    check_amount(Money(parse(most, currency), currency), currency)
    with pytest.raises(AmountTooLarge) as refused:
        check_amount(Money(parse(one_more, currency), currency), currency)
    assert refused.value.errors == [
        {"pointer": "/amount/value", "detail": f"at most {most} {currency} at once"}
    ]


@pytest.mark.parametrize(
    ("currency", "least", "one_less"),
    [
        ("USD", "0.50", "0.49"),
        ("GBP", "0.30", "0.29"),
        ("AED", "2.00", "1.99"),
        ("HUF", "175.00", "174.99"),
        ("JPY", "50", "49"),
        ("KWD", "0.010", "0.009"),
    ],
)
def test_amount_under_stripes_minimum_is_too_small(currency: str, least: str, one_less: str) -> None:
    check_amount(Money(parse(least, currency), currency), currency)
    with pytest.raises(AmountTooSmall) as refused:
        check_amount(Money(parse(one_less, currency), currency), currency)
    assert refused.value.errors == [{"pointer": "/amount/value", "detail": f"at least {least} {currency}"}]


@given(st.sampled_from(sorted(SUPPORTED_CURRENCIES)), st.integers(1, 10**13))
def test_accepted_amount_can_be_charged_by_stripe(currency: str, units: int) -> None:
    try:
        check_amount(Money(units, currency), currency)
    except AmountTooSmall:
        assert units < smallest(currency)
    except AmountTooLarge:
        assert units > largest(currency)
    except InvalidField:
        assert units % step(currency)
    else:
        assert smallest(currency) <= units
        assert from_stripe(to_stripe(units, currency), currency) == units


def test_last_digit_of_three_decimals_must_be_zero() -> None:
    check_amount(Money(5120, "KWD"), "KWD")
    with pytest.raises(InvalidField):
        check_amount(Money(5124, "KWD"), "KWD")


def test_amount_in_another_currency_is_refused() -> None:
    with pytest.raises(CurrencyNotAccepted):
        check_amount(Money(100, "EUR"), "USD")
    with pytest.raises(CurrencyNotAccepted):
        check_amount(Money(100, "EUR"), "USD", ["KWD"])
    check_amount(Money(100, "EUR"), "USD", ["KWD", "EUR"])


def test_token_is_deterministic_and_specific_to_its_pledge() -> None:
    secrets = PledgeSecrets("one")
    assert secrets.token("plg_1") == PledgeSecrets("one").token("plg_1")
    assert len({secrets.token("plg_1"), secrets.token("plg_2"), PledgeSecrets("two").token("plg_1")}) == 3
    assert len(secrets.token("plg_1")) == 32


def test_donor_is_recognised_by_address_within_a_partner() -> None:
    secrets = PledgeSecrets("one")
    assert secrets.address_mac("a", "Sara@Example.org") == secrets.address_mac("a", "sara@example.org ")
    assert secrets.address_mac("a", "sara@example.org") != secrets.address_mac("b", "sara@example.org")


def test_localized_text_falls_back_to_english_then_to_the_first() -> None:
    assert localized({"en": "Winter", "ar": "شتاء"}, "ar-SA") == "شتاء"
    assert localized({"en": "Winter", "ar": "شتاء"}, "fr") == "Winter"
    assert localized({"ar": "شتاء"}, None) == "شتاء"
    assert localized("Winter", "ar") == "Winter"
