"""Money as integers: minor units plus a currency, and the decimal strings of the public API.

Minor units are ISO 4217's; the adapter of a processor with other units converts them. Over HTTP an amount is
a decimal string with exactly the currency's decimals, so that an error by a factor of a hundred is visible to
a reader and refused by a program (docs/architecture.md, "Amounts").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import iso4217

DIGITS: Final[dict[str, int]] = {
    currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None
}
"""Decimals of every active ISO 4217 currency that defines them."""

MAX_DIGITS: Final = 14
"""The most digits before the point; with four decimals, well within a 64-bit integer."""

_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)


class MoneyError(ValueError):
    """Not an amount in the format of the public API; the text says why."""


class TooLarge(MoneyError):
    """A well-formed amount that is too large to be stored."""


class CurrencyMismatch(MoneyError):
    """Arithmetic or comparison between two currencies."""


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount: `minor_units` (may be negative in differences) of an ISO 4217 `currency`.

    Arithmetic and comparison between currencies raise `CurrencyMismatch`.
    """

    minor_units: int
    currency: str

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.minor_units + other.minor_units, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.minor_units - other.minor_units, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor_units, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same(other)
        return self.minor_units < other.minor_units

    def __le__(self, other: Money) -> bool:
        self._same(other)
        return self.minor_units <= other.minor_units

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} cannot be combined")

    def __str__(self) -> str:
        return f"{decimal_string(self.minor_units, self.currency)} {self.currency}"


def digits(currency: str) -> int:
    """The decimals of `currency` in ISO 4217. Raises `MoneyError` for an unknown code."""
    try:
        return DIGITS[currency]
    except KeyError:
        raise MoneyError("not an ISO 4217 currency code in upper case") from None


@lru_cache(maxsize=4096)
def decimal_string(minor_units: int, currency: str) -> str:
    """`"25.00"` for 2,500 US cents: exactly the currency's decimals, with a minus sign where negative."""
    places = digits(currency)
    if not places:
        return str(minor_units)
    sign, units = ("-", -minor_units) if minor_units < 0 else ("", minor_units)
    whole, part = divmod(units, 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def parse(value: str, currency: str) -> int:
    """The minor units of a decimal string written with exactly `currency`'s digits.

    Raises `MoneyError` for signs, exponents, spaces, other scripts' digits, leading zeros and
    more or fewer digits than the currency has, `TooLarge` past `MAX_DIGITS` before the point.
    """
    places = digits(currency)
    match = _DECIMAL.fullmatch(value)
    if match is None:
        raise MoneyError("must be a plain decimal number such as 25.00, in ASCII digits")
    whole, part = match.group(1), match.group(2) or ""
    if len(part) != places:
        raise MoneyError(f"{currency} is written with exactly {places} digits after the point")
    if len(whole) > MAX_DIGITS:
        raise TooLarge(f"more than {MAX_DIGITS} digits before the point")
    return int(whole + part)


def as_json(minor_units: int, currency: str) -> dict[str, str]:
    """The format of the public API: `{"currency": "USD", "value": "25.00"}`."""
    return {"currency": currency, "value": decimal_string(minor_units, currency)}
