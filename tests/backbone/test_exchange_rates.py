"""Exchange rates: exact conversion, reported amounts that never drift, and rates through the euro."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.exchange_rates import (
    MAX_AGE,
    MAX_UNITS,
    Quote,
    converted,
    converted_up,
    cross,
    find_quote,
    is_convertible,
    is_rate,
    reported,
)
from backbone.money import digits

NOW = datetime(2030, 1, 7, 18, tzinfo=UTC)
CURRENCIES = st.sampled_from(["USD", "EUR", "KWD", "BHD", "JPY", "KRW", "AED", "SAR"])
RATES = st.decimals("0.000001", "99999", places=6).map(str).filter(is_rate)


@pytest.mark.parametrize(
    ("units", "source", "target", "rate", "expected"),
    [
        (10_000, "KWD", "USD", "3.2581", 3258),  # 10.000 KWD; 3,258.1 cents
        (100, "JPY", "USD", "0.0065", 65),
        (150, "JPY", "USD", "0.0001", 2),  # 1.5 cents: half to even
        (50, "JPY", "USD", "0.0001", 0),  # 0.5 cents
        (2_500, "USD", "KWD", "0.30693", 7_673),
        (2_500, "USD", "JPY", "153.846", 3_846),
    ],
)
def test_an_amount_is_rounded_once_to_the_digits_of_its_target(
    units: int, source: str, target: str, rate: str, expected: int
) -> None:
    assert converted(units, source, target, rate) == expected


@given(st.integers(-(10**12), 10**12), CURRENCIES, CURRENCIES, RATES)
def test_conversion_rounds_the_exact_product(units: int, source: str, target: str, rate: str) -> None:
    exact = units * Fraction(rate) * Fraction(10 ** digits(target), 10 ** digits(source))
    assert converted(units, source, target, rate) == round(exact)
    assert converted_up(units, source, target, rate) == math.ceil(exact)


@given(CURRENCIES, CURRENCIES, RATES, st.lists(st.integers(1, 10**8), min_size=1, max_size=8))
def test_parts_of_a_payment_add_up_to_its_rounded_net(
    source: str, target: str, rate: str, parts: list[int]
) -> None:
    captured, refunded, seen = sum(parts), 0, 0
    before = reported(captured, 0, 0, source, target, rate)
    total = before.net
    for part in parts:
        refunded += part
        after = reported(captured, refunded, 0, source, target, rate)
        assert after.net == converted(captured - refunded, source, target, rate)
        assert after.captured == before.captured
        assert after.refunded >= before.refunded
        seen += after.net - before.net
        before = after
    assert before.net == 0
    assert total + seen == 0
    assert before.refunded == before.captured


@given(
    CURRENCIES, CURRENCIES, RATES,
    st.integers(1, 10**8), st.integers(0, 10**8), st.integers(0, 10**8),
)  # fmt: skip
def test_refunds_and_disputes_together_leave_the_rounded_net(
    source: str, target: str, rate: str, captured: int, refunded: int, disputed: int
) -> None:
    found = reported(captured, refunded, disputed, source, target, rate)
    assert found.net == converted(captured - refunded - disputed, source, target, rate)
    assert min(found) >= 0


@given(RATES, RATES)
def test_a_cross_rate_is_exact_to_twelve_digits(one: str, other: str) -> None:
    exact = Fraction(other) / Fraction(one)
    assert abs(Fraction(cross(one, other)) / exact - 1) <= Fraction(1, 2 * 10**11)


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "1e3", " 1", "1,5", "01", "1.", ".5", "٣", "1" * 9, ""])
def test_what_is_no_rate(text: str) -> None:
    assert not is_rate(text)


@pytest.mark.parametrize("text", ["1", "3.2581", "0.00000001", "12345678.123456789012"])
def test_what_is_a_rate(text: str) -> None:
    assert is_rate(text)


def test_the_pairs_own_rate_comes_before_the_one_through_the_euro() -> None:
    known = {
        ("KWD", "USD"): Quote("3.25", NOW),
        ("EUR", "KWD"): Quote("0.33", NOW - timedelta(days=1)),
        ("EUR", "USD"): Quote("1.10", NOW),
    }
    assert find_quote("KWD", "USD", known, NOW) == Quote("3.25", NOW)
    known[("KWD", "USD")] = Quote("3.25", NOW - MAX_AGE - timedelta(seconds=1))
    assert find_quote("KWD", "USD", known, NOW) == Quote("3.33333333333", NOW - timedelta(days=1))
    assert find_quote("EUR", "USD", known, NOW) == Quote("1.10", NOW)
    assert find_quote("USD", "EUR", known, NOW) == Quote("0.909090909091", NOW)
    assert find_quote("JPY", "USD", known, NOW) is None


def test_no_stale_rate_is_found() -> None:
    known = {("KWD", "USD"): Quote("3.25", NOW)}
    assert find_quote("KWD", "USD", known, NOW + MAX_AGE) is not None
    assert find_quote("KWD", "USD", known, NOW + MAX_AGE + timedelta(microseconds=1)) is None
    through = {("EUR", "KWD"): Quote("0.33", NOW - timedelta(days=8)), ("EUR", "USD"): Quote("1.1", NOW)}
    assert find_quote("KWD", "USD", through, NOW) is None


def test_an_amount_that_is_worth_nothing_or_too_much_is_not_convertible() -> None:
    assert not is_convertible(50, "JPY", "USD", "0.00001")
    assert is_convertible(50, "JPY", "USD", "0.02")
    assert not is_convertible(MAX_UNITS, "USD", "KWD", "99999999")
