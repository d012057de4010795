"""The amounts Stripe takes: its minor units, the most and the least of each currency.

Pledges and payments share these rules, so that every pledge can be charged. Functions take and return ISO
4217 minor units unless stated otherwise. Stripe differs from ISO 4217 for a few currencies: it gives ISK and
UGX two digits, takes MGA without any, and refuses three-digit amounts whose last digit is not 0.

Source: https://docs.stripe.com/currencies, sections "Special cases", "Minimum charge amount by
currency" and "Maximum charge amounts". The rule of the last digit is from the section "Three-decimal
currencies" of earlier versions of that page; an amount that follows it is taken either way.
"""

from __future__ import annotations

from typing import Final

from backbone.money import DIGITS, MoneyError, digits

_STRIPE_CURRENCIES: Final = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF
CHF CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL
HTG HUF IDR ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD
MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD STN SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD
UYU UZS VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW
"""
SUPPORTED_CURRENCIES: Final = frozenset(_STRIPE_CURRENCIES.split()) & frozenset(DIGITS)
"""Currencies a drive may have. Stripe counts MGA without the two digits ISO gives it: left out."""

ZERO_DECIMAL: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE_DECIMAL: Final = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))

MOST_DIGITS: Final = 8
"""How many digits an amount may have in Stripe's own minor units, where no more are listed below."""

MORE_DIGITS: Final = {"IDR": 12, "LBP": 11, "COP": 10, "HUF": 10, "INR": 9}
"""Currencies with a cap of more than eight digits.

IDR, COP and INR: with every payment method. HUF and LBP: with cards only (each version of the page
gives cards at least this many digits; other methods take eight). JPY stays at
eight: JCB, Diners Club and Discover cards take no more at accounts in Japan. A card network may
refuse less than this (American Express: nine digits in most currencies).
"""

_MINIMUMS: Final = {
    "AED": 2_00, "ARS": 50, "AUD": 50, "BRL": 50, "CAD": 50, "CHF": 50, "COP": 50, "CZK": 15_00,
    "DKK": 2_50, "EUR": 50, "GBP": 30, "HKD": 4_00, "HUF": 175_00, "IDR": 50, "ILS": 50, "INR": 50,
    "JPY": 50, "KRW": 50, "MXN": 10_00, "MYR": 2_00, "NOK": 3_00, "NZD": 50, "PHP": 50, "PLN": 2_00,
    "RON": 2_00, "RUB": 50, "SEK": 3_00, "SGD": 50, "THB": 10_00, "USD": 50, "ZAR": 50,
}  # fmt: skip
"""In ISO minor units."""


class UnsupportedAmount(MoneyError):
    """An amount that Stripe does not accept; the text says why."""


def largest(currency: str) -> int:
    """The most ISO minor units Stripe takes at once; raises `MoneyError` for an unknown currency.

    It is itself an amount that is taken: a multiple of `step`.
    """
    most = _rounded_down(10 ** MORE_DIGITS.get(currency, MOST_DIGITS) - 1, currency)
    return most - most % step(currency)


def smallest(currency: str) -> int:
    """The fewest ISO minor units Stripe takes; raises `MoneyError` for an unknown currency.

    Stripe's minimum is that of the currency the account is paid out in: a charge in another currency
    must be worth that much after conversion. Where the two are the same, this is exact; otherwise
    Stripe may refuse an amount above it. A currency without a listed minimum has its smallest step.
    """
    return max(_MINIMUMS.get(currency, 1), step(currency))


def step(currency: str) -> int:
    """How many ISO minor units an amount must be a multiple of; raises `MoneyError` for an unknown one."""
    if currency in THREE_DECIMAL:
        return 10
    return int(10 ** max(0, digits(currency) - stripe_digits(currency)))


def stripe_digits(currency: str) -> int:
    """How many digits after the point Stripe counts in."""
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


def to_stripe(units: int, currency: str) -> int:
    """ISO minor units as Stripe counts them; raises `UnsupportedAmount` for what exceeds the cap or has a
    fraction.

    Minimums are not checked: a refund may be smaller than any charge.
    """
    if units > largest(currency):
        raise UnsupportedAmount("more than Stripe takes at once")
    if units % step(currency):
        if currency in THREE_DECIMAL:
            raise UnsupportedAmount(f"the last digit of an amount in {currency} must be 0")
        raise UnsupportedAmount(f"{currency} is charged in whole units")
    return int(units * 10 ** stripe_digits(currency) // 10 ** digits(currency))


def from_stripe(units: int, currency: str) -> int:
    """Stripe's minor units as ISO counts them; raises `UnsupportedAmount` where ISO has no such fraction."""
    counted = _rounded_down(units, currency)
    if counted * 10 ** stripe_digits(currency) != units * 10 ** digits(currency):
        raise UnsupportedAmount(f"{units} of Stripe's units are no whole amount of {currency}")
    return counted


def rounded_up(units: int, currency: str) -> int:
    """Stripe's minor units as ISO counts them, a fraction that ISO does not know counted as a whole unit.

    For what may have to be subtracted. Raises `MoneyError` for an unknown currency.
    """
    return -_rounded_down(-units, currency)


def _rounded_down(units: int, currency: str) -> int:
    """Stripe's minor units as ISO 4217 minor units, rounded down."""
    return int(units * 10 ** digits(currency) // 10 ** stripe_digits(currency))


_USUAL: Final = (25, 10, 5, 50, 20)
"""The amounts of 73 % of all donations in the load model (docs/load-model.md), the suggested one first."""


def usual_amounts(currency: str) -> list[int]:
    """25, 10, 5, 50 and 20 of the currency, times 100 if it has no decimals, and times a power of ten if
    Stripe does not accept 5 of it; in minor units.
    """
    unit = 10 ** digits(currency) if digits(currency) else 100
    while min(_USUAL) * unit < smallest(currency):
        unit *= 10
    return [n * unit for n in _USUAL]
