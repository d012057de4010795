"""Exchange rates as decimal strings, and amounts converted at them. Exact arithmetic, no floats.

`rate` is how many units of the target currency one unit of the source currency is worth. An amount is rounded
once, half to even, to the target's minor units. A rate that follows from two others is rounded once to
`CROSS_DIGITS` significant digits: the rounded rate is the rate, so what it gives can be computed again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from backbone.money import digits

RATE: Final = r"(?:[1-9][0-9]{0,7}(?:\.[0-9]{1,12})?|0\.[0-9]{0,11}[1-9][0-9]{0,11})"
"""The pattern of a rate: a plain decimal number above zero."""

MAX_AGE: Final = timedelta(days=7)
"""How old a rate may be that is used: the longest pause of the ECB's list, over Easter or Christmas, is five
days."""
CROSS_DIGITS: Final = 12
PIVOT: Final = "EUR"
"""The currency through which a pair without a rate of its own is converted."""
MAX_UNITS: Final = 10**13
"""The largest converted amount in minor units: 900,000 of them add up within a 64-bit integer."""

_PATTERN: Final = re.compile(RATE, re.ASCII)
_CROSS: Final = Context(prec=CROSS_DIGITS, rounding=ROUND_HALF_EVEN)

Pair = tuple[str, str]
"""Source and target currency."""


class Quote(NamedTuple):
    """A rate and the moment for which it was published."""

    rate: str
    as_of: datetime


class Reported(NamedTuple):
    """What was captured, refunded and disputed of a payment, in its drive's currency."""

    captured: int
    refunded: int
    disputed: int

    @property
    def net(self) -> int:
        """Captured less refunded and disputed."""
        return self.captured - self.refunded - self.disputed


def is_rate(text: str) -> bool:
    """Whether `text` is a rate as the API takes it."""
    return _PATTERN.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _factor(source: str, target: str, rate: str) -> tuple[int, int]:
    """Minor units of `target` for one minor unit of `source`, as numerator and denominator."""
    return (Fraction(rate) * Fraction(10 ** digits(target), 10 ** digits(source))).as_integer_ratio()


def converted(units: int, source: str, target: str, rate: str) -> int:
    """`units` minor units of `source` in minor units of `target`, rounded half to even.

    Raises `MoneyError` for an unknown currency.
    """
    times, by = _factor(source, target, rate)
    whole, rest = divmod(units * times, by)
    return whole + (2 * rest > by or (2 * rest == by and whole & 1))


def converted_up(units: int, source: str, target: str, rate: str) -> int:
    """The same, rounded up."""
    times, by = _factor(source, target, rate)
    return -(-units * times // by)


def reported(captured: int, refunded: int, disputed: int, source: str, target: str, rate: str) -> Reported:
    """A payment's cumulative amounts in its drive's currency.

    Each is the difference of two rounded nets, so their net is the rounded net of the payment after any
    sequence of refunds, and 0 after a full one. A pure function: no order of facts changes it.
    """
    gross = converted(captured, source, target, rate)
    kept = converted(captured - refunded, source, target, rate)
    net = converted(captured - refunded - disputed, source, target, rate)
    return Reported(gross, gross - kept, kept - net)


def is_fresh(quote: Quote, at: datetime) -> bool:
    """Whether a rate may be used at this moment."""
    return at - quote.as_of <= MAX_AGE


def find_quote(source: str, target: str, known: Mapping[Pair, Quote], at: datetime) -> Quote | None:
    """The rate of a pair at this moment; None without a fresh one.

    The pair's own rate comes first, then the one through the euro. That is as old as the older of its two.
    """
    own = known.get((source, target))
    if own is not None and is_fresh(own, at):
        return own
    one = Quote("1", at)
    to_source = one if source == PIVOT else known.get((PIVOT, source))
    to_target = one if target == PIVOT else known.get((PIVOT, target))
    if to_source is None or to_target is None or source == target:
        return None
    crossed = Quote(cross(to_source.rate, to_target.rate), min(to_source.as_of, to_target.as_of))
    return crossed if is_fresh(crossed, at) else None


def pairs_for(source: str, target: str) -> tuple[Pair, ...]:
    """The pairs from which `find_quote` derives a rate."""
    return ((source, target), (PIVOT, source), (PIVOT, target))


def cross(to_source: str, to_target: str) -> str:
    """The rate from source to target, by the rates of the pivot to both."""
    found = _CROSS.divide(Decimal(to_target), Decimal(to_source))
    text = format(found, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_convertible(units: int, source: str, target: str, rate: str) -> bool:
    """Whether an amount is worth at least one minor unit of `target`, and no more than can be stored."""
    return 0 < converted(units, source, target, rate) <= MAX_UNITS
