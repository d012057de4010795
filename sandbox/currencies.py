"""Stripe's currency rules (https://docs.stripe.com/currencies), kept apart from the services' own.

Amounts are integers in Stripe's minor units, which differ from ISO 4217's digits for a few currencies.
"""

from __future__ import annotations

from typing import Final

from sandbox.refusals import invalid

ZERO_DECIMAL: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMAL: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
# No minor unit of their own, yet Stripe counts them in hundredths that must be whole.
WHOLE_HUNDREDTHS: Final = frozenset({"ISK", "UGX"})
MORE_DIGITS: Final = {"IDR": 12, "LBP": 11, "COP": 10, "HUF": 10, "INR": 9}


def digits(currency: str) -> int:
    """Decimal digits of Stripe's amounts in this currency (upper case)."""
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


def largest_amount(currency: str) -> int:
    """Eight digits, for a few currencies more."""
    return int(10 ** MORE_DIGITS.get(currency, 8) - 1)


def smallest_step(currency: str) -> int:
    """Amounts must be a multiple of this many minor units: 10 for KWD and its like, 100 for ISK and UGX."""
    if currency in WHOLE_HUNDREDTHS:
        return 100
    return 10 if currency in THREE_DECIMAL else 1


def fee(amount: int, currency: str) -> int:
    """What the processor keeps of a captured charge: 2.9 % rounded half up, and 30 minor units.

    Where the currency has no minor unit, the fee is rounded half up to a whole one.
    """
    exact = (amount * 29 + 500) // 1000 + 30
    if currency in WHOLE_HUNDREDTHS:
        return (exact + 50) // 100 * 100
    return exact


def decimal_string(amount: int, currency: str) -> str:
    """The amount with exactly the digits ISO 4217 gives the currency: `2550, "USD"` is `"25.50"`."""
    if currency in WHOLE_HUNDREDTHS:
        return str(amount // 100)
    places = digits(currency)
    if places == 0:
        return str(amount)
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def refuse_bad_amount(amount: int, currency: str, param: str) -> None:
    """Raises Refusal for an amount Stripe would not take.

    Stripe also has a minimum of about half a dollar; the sandbox takes every positive amount, because a
    rehearsal counts to the cent.
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
    """Upper case of a three-letter code. Raises Refusal for what cannot be a currency."""
    upper = code.upper()
    if len(upper) != 3 or not upper.isascii() or not upper.isalpha():
        raise invalid(f"Invalid currency: {code}.", param, "parameter_invalid_string")
    return upper
