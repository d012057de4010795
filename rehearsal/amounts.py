"""Amounts of the rehearsal: integer cents internally, decimal strings in the API."""

from typing import Final

CURRENCY: Final = "USD"
LARGEST_GIFT_CENTS: Final = 99_999_999
"""Stripe accepts at most eight digits (https://docs.stripe.com/currencies)."""


def as_decimal(cents: int) -> str:
    """`250` as `"2.50"`: two decimals, no grouping; `cents` is not negative."""
    return f"{cents // 100}.{cents % 100:02d}"


def as_money(cents: int) -> dict[str, str]:
    """Cents as a money object of the public API."""
    return {"currency": CURRENCY, "value": as_decimal(cents)}
