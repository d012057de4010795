"""The sandbox's own formatting of amounts agrees with Ataa's, which it does not import."""

from __future__ import annotations

import pytest

from backbone.money_text import money_text
from sandbox.amount_text import amount_text


@pytest.mark.parametrize("language", ["en", "ar"])
@pytest.mark.parametrize(
    ("value", "currency"),
    [
        ("25.00", "USD"),
        ("1234567.80", "EUR"),
        ("1.250", "KWD"),
        ("5000", "JPY"),
        ("9.50", "CHF"),
        ("7.25", "AED"),
    ],
)
def test_amount_is_written_as_ataas_pages_write_it(value: str, currency: str, language: str) -> None:
    assert amount_text(value, currency, language) == money_text(value, currency, language)
