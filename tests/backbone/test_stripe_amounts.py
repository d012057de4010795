"""Stripe's minor units, and its minimum and maximum amount of each currency."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.money import DIGITS, MoneyError, parse
from backbone.stripe_amounts import (
    UnsupportedAmount,
    from_stripe,
    largest,
    smallest,
    step,
    stripe_digits,
    to_stripe,
)

CURRENCIES = sorted(DIGITS)


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
def test_amounts_are_converted_to_stripes_minor_units(currency: str, units: int, stripes: int) -> None:
    assert to_stripe(units, currency) == stripes
    assert from_stripe(stripes, currency) == units


@pytest.mark.parametrize(("units", "currency"), [(10_001, "KWD"), (501, "MGA"), (100_000_000, "USD")])
def test_amount_that_stripe_does_not_accept_is_refused(units: int, currency: str) -> None:
    with pytest.raises(UnsupportedAmount):
        to_stripe(units, currency)


def test_fraction_of_an_iso_minor_unit_is_refused() -> None:
    with pytest.raises(UnsupportedAmount):
        from_stripe(50_050, "ISK")


@given(st.integers(1, 999_999), st.sampled_from(["USD", "JPY", "ISK", "UGX", "EUR", "SAR"]))
def test_accepted_amount_round_trips(units: int, currency: str) -> None:
    assert from_stripe(to_stripe(units, currency), currency) == units


@pytest.mark.parametrize(
    ("currency", "most"),
    [
        ("USD", "999999.99"), ("JPY", "99999999"), ("KWD", "99999.990"), ("UGX", "999999"), ("ISK", "999999"),
        ("IDR", "9999999999.99"), ("COP", "99999999.99"), ("HUF", "99999999.99"), ("LBP", "999999999.99"),
        ("INR", "9999999.99"),
    ],
)  # fmt: skip
def test_largest_amount_matches_stripes_documentation(currency: str, most: str) -> None:
    assert largest(currency) == parse(most, currency)


@pytest.mark.parametrize(
    ("currency", "least"),
    [
        ("USD", "0.50"), ("EUR", "0.50"), ("GBP", "0.30"), ("AED", "2.00"), ("JPY", "50"), ("KRW", "50"),
        ("HUF", "175.00"), ("MXN", "10.00"), ("KWD", "0.010"), ("ISK", "1"), ("MGA", "1.00"),
    ],
)  # fmt: skip
def test_smallest_amount_matches_stripes_documentation_or_is_a_step(currency: str, least: str) -> None:
    assert smallest(currency) == parse(least, currency)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_limits_are_inclusive(currency: str) -> None:
    for units in (largest(currency), smallest(currency)):
        assert from_stripe(to_stripe(units, currency), currency) == units
    with pytest.raises(UnsupportedAmount):
        to_stripe(largest(currency) + step(currency), currency)


@given(st.sampled_from(CURRENCIES), st.integers(1, 10**13))
def test_amount_is_converted_exactly_or_refused(currency: str, units: int) -> None:
    """Stripe's units times the size of a unit are exactly the amount."""
    fits = units <= largest(currency) and units % step(currency) == 0
    try:
        counted = to_stripe(units, currency)
    except UnsupportedAmount:
        assert not fits
    else:
        assert fits
        assert counted * 10 ** DIGITS[currency] == units * 10 ** stripe_digits(currency)
        assert len(str(counted)) <= 12


def test_unknown_currency_raises() -> None:
    for limit in (largest, smallest, step):
        with pytest.raises(MoneyError):
            limit("XXQ")
