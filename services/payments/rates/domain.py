"""Which exchange rates are taken, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Final, NamedTuple

from backbone.exchange_rates import MAX_AGE, Quote

MAX_CHANGE: Final = Fraction(1, 5)
"""How much a rate may differ from the newest one, and from each that was set within a day."""
DAY: Final = timedelta(days=1)


class Refusal(StrEnum):
    """Why a rate is not taken."""

    STALE = "stale"
    """It is older than rates may be that are used."""
    OLDER = "older"
    """A newer one is known."""
    JUMP = "jump"
    """It differs by more than a fifth from a rate of the last day, or from the newest one."""


class KnownRate(NamedTuple):
    """A rate that was taken, when, and whether an admin confirmed it."""

    quote: Quote
    set_at: datetime
    confirmed: bool


def refusal(new: Quote, known: Sequence[KnownRate], now: datetime, *, confirmed: bool) -> Refusal | None:
    """Why a rate is refused; None where it is taken. `known` are the pair's rates, the newest first.

    A `confirmed` rate may differ by any amount. The rates before it are no longer compared, so that the
    next ones are not refused for what was confirmed.
    """
    if now - new.as_of > MAX_AGE:
        return Refusal.STALE
    if known and new.as_of < known[0].quote.as_of:
        return Refusal.OLDER
    if not confirmed and any(_differ(new.rate, each.quote.rate) for each in _compared(known, now)):
        return Refusal.JUMP
    return None


def _compared(known: Sequence[KnownRate], now: datetime) -> list[KnownRate]:
    """The newest rate, and those of the last day as far as none after them was confirmed."""
    found: list[KnownRate] = []
    for place, each in enumerate(known):
        if place and now - each.set_at > DAY:
            break
        found.append(each)
        if each.confirmed:
            break
    return found


def _differ(new: str, old: str) -> bool:
    return abs(Fraction(new) / Fraction(old) - 1) > MAX_CHANGE
