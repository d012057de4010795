"""Dollars as the rehearsal handles them: whole cents inside, decimal strings over HTTP."""

from typing import Final

CURRENCY: Final = "USD"
LARGEST_GIFT_CENTS: Final = 99_999_999
"""Stripe takes at most eight digits (https://docs.stripe.com/currencies)."""


def as_decimal(cents: int) -> str:
    """`250` as `"2.50"`; never grouped, always two digits."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def as_money(cents: int) -> dict[str, str]:
    """Cents as the public door writes money."""
    return {"currency": CURRENCY, "value": as_decimal(cents)}


def as_cents(value: str) -> int:
    """`"2.50"` as 250. Raises ValueError on anything that is not a plain two-digit decimal."""
    whole, dot, fraction = value.removeprefix("-").partition(".")
    if not (dot and len(fraction) == 2 and (whole + fraction).isascii() and (whole + fraction).isdigit()):
        raise ValueError(f"not dollars and cents: {value!r}")
    cents = int(whole) * 100 + int(fraction)
    return -cents if value.startswith("-") else cents
