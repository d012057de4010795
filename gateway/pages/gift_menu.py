"""The amounts that the donate form suggests, in the drive's currency and in the others that it takes.

Amounts in another currency are the drive's own, converted and rounded to amounts that people give: 1, 2, 2.5
or 5 times a power of ten.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from babel.numbers import get_currency_name

from backbone import money
from backbone.exchange_rates import MAX_UNITS, converted
from backbone.stripe_amounts import largest, smallest, step, usual_amounts
from gateway.pages.languages import Voice

_ROUND: Final = sorted({first * 10**zeros for first in (1, 2, 5, 25) for zeros in range(13)})
"""In minor units of any currency."""

Fee = Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class OtherCurrency:
    """A currency that a drive takes besides its own.

    One unit is worth `rate` units of the drive's; `fee` is what the donor may add (`gateway.fees`).
    """

    code: str
    rate: str
    fee: Fee = None


def own_menu(drive: Mapping[str, object]) -> list[str]:
    """The drive's menu, the suggested amount first, or the default one.

    Amounts that would be refused are left out: drives older than the limits have some.
    """
    currency = str(drive["currency"])
    menu = drive.get("menu")
    listed = menu if isinstance(menu, Sequence) else ()
    values = [str(item["value"]) for item in listed if isinstance(item, Mapping)]
    least, most = smallest(currency), largest(currency)
    accepted = [value for value in values if least <= money.parse(value, currency) <= most]
    return accepted or default_menu(currency)


def default_menu(currency: str) -> list[str]:
    """The usual amounts of the currency, as decimal strings."""
    return [money.decimal_string(units, currency) for units in usual_amounts(currency)]


def example_amount(currency: str) -> str:
    """An amount of this currency in plain digits, as a donor may type it."""
    return default_menu(currency)[0]


@lru_cache(maxsize=1024)
def converted_menu(menu: tuple[int, ...], own: str, other: str, rate: str) -> tuple[int, ...]:
    """Round amounts in minor units of `other` near those of `menu`, in its order and each once.

    Stripe takes each of them, and each is worth at least the least that Stripe takes in `own`. An amount for
    which that is no round one has the nearest that is. Empty where no round amount is.
    """
    taken = [
        units
        for units in _ROUND
        if smallest(other) <= units <= largest(other)
        and units % step(other) == 0
        and smallest(own) <= converted(units, other, own, rate) <= MAX_UNITS
    ]
    if not taken:
        return ()
    one = Fraction(rate) * Fraction(10 ** money.digits(own), 10 ** money.digits(other))
    return tuple(dict.fromkeys(_nearest(taken, units / one) for units in menu))


def _nearest(rising: Sequence[int], exact: Fraction) -> int:
    """The one whose ratio to `exact` is nearest to 1; the smaller of two."""
    index = bisect_left(rising, exact)
    if index in (0, len(rising)):
        return rising[min(index, len(rising) - 1)]
    below, above = rising[index - 1], rising[index]
    return below if exact * exact <= below * above else above


def currencies_of(
    drive: Mapping[str, object], own_fee: Fee, others: Sequence[OtherCurrency], voice: Voice
) -> dict[str, dict[str, object]]:
    """What the form needs of each currency that it offers, by code, the drive's own first.

    One of `others` without a round amount to suggest is left out. `rate` is null for the drive's own.
    """
    own = str(drive["currency"])
    menu = own_menu(drive)
    units = tuple(money.parse(value, own) for value in menu)
    found = {own: _described(own, menu, own_fee, None, voice)}
    for one in others:
        near = converted_menu(units, own, one.code, one.rate)
        if near:
            values = [money.decimal_string(each, one.code) for each in near]
            found[one.code] = _described(one.code, values, one.fee, one.rate, voice)
    return found


def _described(
    currency: str, menu: Sequence[str], fee: Fee, rate: str | None, voice: Voice
) -> dict[str, object]:
    return {
        "currency": currency,
        "decimals": money.digits(currency),
        "fee": fee,
        "rate": rate,
        "chosen": menu[0],
        "menu": sorted(set(menu), key=lambda value: money.parse(value, currency)),
        "example": voice.typed(example_amount(currency)),
    }


def currency_name(currency: str, voice: Voice) -> str:
    """Its name in the language of the page, and its code."""
    name = get_currency_name(currency, locale=voice.lang)
    return f"{name} ({currency})"


def worth_of(value: str, currency: str, rate: str, own: str) -> str:
    """What an amount is worth in the drive's `own` currency, as a decimal string."""
    return money.decimal_string(converted(money.parse(value, currency), currency, own, rate), own)
