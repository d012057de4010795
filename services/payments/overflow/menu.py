"""The amounts of a drive for which Payment Links are prepared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from backbone.money import Money, MoneyError, parse
from backbone.stripe_amounts import usual_amounts

MOST: Final = 20
"""Links of one drive; a menu has no more amounts."""


def link_amounts(menu: Iterable[Mapping[str, Any]], currency: str, others: Collection[str]) -> list[Money]:
    """The amounts of a drive's menu in currencies that it takes; without one, the usual ones in its own."""
    offered = [_money(each) for each in menu]
    if not offered:
        return [Money(units, currency) for units in usual_amounts(currency)]
    taken = [each for each in offered if each is not None and each.currency in (currency, *others)]
    return list(dict.fromkeys(taken))[:MOST]


def _money(shown: Mapping[str, Any]) -> Money | None:
    """The amount, as the API shows it; None for one that this version cannot read."""
    try:
        currency = str(shown["currency"])
        return Money(parse(str(shown["value"]), currency), currency)
    except (KeyError, TypeError, MoneyError):
        return None
