"""Money: integers internally, exact decimal strings externally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.http.fields import AmountTooLargeError, MoneyBody
from backbone.http.problems import Invalid, from_validation
from backbone.money import DIGITS, CurrencyMismatch, Money, MoneyError, decimal_string, parse

currencies = st.sampled_from(sorted(DIGITS))
units = st.integers(min_value=0, max_value=10**14 - 1)


@given(units, currencies)
def test_decimal_string_round_trips_to_the_minor_unit(minor_units: int, currency: str) -> None:
    assert parse(decimal_string(minor_units, currency), currency) == minor_units


@given(units, units, currencies)
def test_addition_and_subtraction_are_exact_inverses(one: int, other: int, currency: str) -> None:
    total = Money(one, currency) + Money(other, currency)
    assert total.minor_units == one + other
    assert total - Money(other, currency) == Money(one, currency)
    owed = -total
    assert -owed == total


@given(units, currencies, currencies)
def test_mixing_currencies_raises(minor_units: int, one: str, other: str) -> None:
    if one == other:
        return
    for mix in (
        lambda: Money(minor_units, one) + Money(1, other),
        lambda: Money(minor_units, one) - Money(1, other),
        lambda: Money(minor_units, one) < Money(1, other),
        lambda: Money(minor_units, one) <= Money(1, other),
    ):
        with pytest.raises(CurrencyMismatch):
            mix()


@given(st.text(max_size=12), currencies)
def test_parse_accepts_only_ascii_decimals_with_the_right_decimals(text: str, currency: str) -> None:
    try:
        found = parse(text, currency)
    except MoneyError:
        return
    assert decimal_string(found, currency) == text


@pytest.mark.parametrize(
    ("value", "currency"),
    [
        ("25", "USD"), ("25.0", "USD"), ("25.000", "USD"), ("25.", "USD"), (".50", "USD"), ("025.00", "USD"),
        ("+25.00", "USD"), ("-25.00", "USD"), ("2.5e1", "USD"), (" 25.00", "USD"), ("25.00 ", "USD"),
        ("25,00", "USD"), ("٢٥.٠٠", "USD"), ("２５.００", "USD"),
        ("", "USD"), ("NaN", "USD"), ("1_000.00", "USD"),
        ("100.00", "JPY"), ("1.00", "KWD"), ("25.00", "usd"), ("25.00", "XXX"),
        ("25.00", ""), ("25.00\n", "USD"),
    ],
)  # fmt: skip
def test_malformed_amount_is_refused(value: str, currency: str) -> None:
    with pytest.raises(MoneyError):
        parse(value, currency)


@pytest.mark.parametrize(
    ("minor_units", "currency", "written"),
    [
        (2500, "USD", "25.00"),
        (5, "USD", "0.05"),
        (-5, "USD", "-0.05"),
        (700, "JPY", "700"),
        (1230, "KWD", "1.230"),
    ],
)
def test_currency_is_written_with_its_own_decimals(minor_units: int, currency: str, written: str) -> None:
    assert decimal_string(minor_units, currency) == written


def test_enormous_amount_is_reported_as_too_large() -> None:
    with pytest.raises(ValueError, match="digits before") as caught:
        MoneyBody(currency="USD", value="9" * 25 + ".00")
    error = caught.value.errors()[0]["ctx"]["error"]  # type: ignore[attr-defined]
    assert isinstance(error, AmountTooLargeError)
    assert from_validation(caught.value.errors()).slug == "amount-too-large"  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["0.00", "0.000", "-1.00"])
def test_zero_and_negative_amounts_are_refused(value: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        MoneyBody(currency="USD", value=value)
    assert isinstance(from_validation(caught.value.errors()), Invalid)  # type: ignore[attr-defined]
