"""Every ISO 4217 currency is formatted with ISO's decimals, in both languages."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.money import DIGITS, decimal_string
from backbone.money_text import Numerals, money_text

LANGUAGES = ("en", "ar")
ARABIC_INDIC = str.maketrans("٠١٢٣٤٥٦٧٨٩٫٬", "0123456789.,")


def number_in(text: str) -> str:
    """The number in `text` as a decimal string. (Arabic currency signs contain full stops.)"""
    numbers = re.findall(r"[0-9][0-9,]*(?:\.[0-9]+)?", text.translate(ARABIC_INDIC))
    assert len(numbers) == 1, text
    return str(numbers[0]).replace(",", "")


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("currency", sorted(DIGITS))
def test_every_currency_shows_all_its_iso_decimals(currency: str, lang: str) -> None:
    for units in (1, 1_234_567_899, 9_999_999_999, 10 ** DIGITS[currency] * 25):
        value = decimal_string(units, currency)
        for numerals in get_args(Numerals):
            assert number_in(money_text(value, currency, lang, numerals)) == value
    whole = decimal_string(10 ** DIGITS[currency] * 25, currency)
    assert number_in(money_text(whole, currency, lang, short=True)) == "25"


@given(st.sampled_from(sorted(DIGITS)), st.integers(0, 10**18), st.sampled_from(LANGUAGES), st.booleans())
def test_no_amount_is_rounded(currency: str, units: int, lang: str, short: bool) -> None:
    value = decimal_string(units, currency)
    shown = number_in(money_text(value, currency, lang, short=short))
    assert shown == value or (
        short and shown == value.partition(".")[0] and not units % 10 ** DIGITS[currency]
    )


@pytest.mark.parametrize(
    ("value", "currency", "lang", "shown"),
    [
        ("1234.50", "HUF", "en", "\u2066HUF\u2069\u00a01,234.50"),
        ("1234.50", "LBP", "en", "\u2066LBP\u2069\u00a01,234.50"),
        ("1234.50", "YER", "ar", "\u200f1,234.50\u00a0ر.ي.\u200f"),
        ("1234.500", "IQD", "ar", "\u200f1,234.500\u00a0د.ع.\u200f"),
        ("1234.50", "XCG", "en", "\u2066Cg.\u2069\u00a01,234.50"),
        ("-10.00", "USD", "en", "-$10.00"),
    ],
)
def test_amount_is_formatted_in_the_style_of_its_language(
    value: str, currency: str, lang: str, shown: str
) -> None:
    assert money_text(value, currency, lang) == shown
