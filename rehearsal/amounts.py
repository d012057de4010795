"""Dollars as the rehearsal handles them: whole cents inside, decimal strings over HTTP."""

from typing import Final

CURRENCY: Final = "USD"
LARGEST_GIFT_CENTS: Final = 99_999_999
"""Stripe takes at most eight digits (https://docs.stripe.com/currencies)."""


def as_decimal(cents: int) -> str:
    """`250` as `"2.50"`; never grouped, always two digits. Cents are not negative."""
    return f"{cents // 100}.{cents % 100:02d}"


def as_money(cents: int) -> dict[str, str]:
    """Cents as the public door writes money."""
    return {"currency": CURRENCY, "value": as_decimal(cents)}
