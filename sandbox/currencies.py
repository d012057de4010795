"""Stripe's currency rules (https://docs.stripe.com/currencies), independent of Ataa's implementation.

Amounts are integers in Stripe's minor units, whose decimals differ from ISO 4217's for a few currencies.
"""

from __future__ import annotations

from typing import Final

from sandbox.errors import invalid

ZERO_DECIMAL: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMAL: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
# Without a minor unit in practice, but Stripe takes hundredths that must be a multiple of 100.
WHOLE_HUNDREDTHS: Final = frozenset({"ISK", "UGX"})
LONGER_AMOUNTS: Final = {"IDR": 12, "LBP": 11, "COP": 10, "HUF": 10, "INR": 9}


def digits(currency: str) -> int:
    """Decimals of Stripe's amounts in a currency (upper case)."""
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


def largest_amount(currency: str) -> int:
    """The largest amount in minor units: eight digits, more for a few currencies."""
    return int(10 ** LONGER_AMOUNTS.get(currency, 8) - 1)


def smallest_step(currency: str) -> int:
    """Amounts must be a multiple of it: 10 for three-decimal currencies, 100 for ISK and UGX, else 1."""
    if currency in WHOLE_HUNDREDTHS:
        return 100
    return 10 if currency in THREE_DECIMAL else 1


def fee(amount: int, currency: str) -> int:
    """The processing fee of a captured charge: 2.9 %, rounded half up, plus 30 minor units.

    For ISK and UGX, which have no minor unit in practice, it is rounded half up to a multiple of 100.
    """
    exact = (amount * 29 + 500) // 1000 + 30
    if currency in WHOLE_HUNDREDTHS:
        return (exact + 50) // 100 * 100
    return exact


def decimal_string(amount: int, currency: str) -> str:
    """The amount with the decimals that ISO 4217 gives the currency: `2550, "USD"` is `"25.50"`."""
    if currency in WHOLE_HUNDREDTHS:
        return str(amount // 100)
    places = digits(currency)
    if places == 0:
        return str(amount)
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def refuse_bad_amount(amount: int, currency: str, param: str) -> None:
    """Raises ApiError (400) for an amount that Stripe refuses.

    Stripe also has a minimum of about half a dollar; the sandbox accepts every positive amount, because the
    rehearsal tests single cents.
    """
    if amount < 1:
        raise invalid("This value must be greater than or equal to 1.", param, "parameter_invalid_integer")
    if amount > largest_amount(currency):
        raise invalid(f"Amount must be no more than {largest_amount(currency)}.", param, "amount_too_large")
    step = smallest_step(currency)
    if amount % step:
        raise invalid(
            f"Invalid {currency.lower()} amount: it must be a multiple of {step}.", param, "invalid_amount"
        )


def known_currency(code: str, param: str) -> str:
    """A three-letter code in upper case. Raises ApiError (400) for anything else."""
    upper = code.upper()
    if len(upper) != 3 or not upper.isascii() or not upper.isalpha():
        raise invalid(f"Invalid currency: {code}.", param, "parameter_invalid_string")
    return upper
