"""JSON Schema of amounts: what a currency, its digits and Stripe's limits allow, as regular expressions.

A generated client that follows these schemas refuses the amounts that the API refuses. What they cannot
say is that an amount must be in the currency of its drive.

The patterns hold in Python, in ECMA 262 and in Rust alike: character classes and bounded repetition only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from backbone.money import MAX_DIGITS, digits
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, largest, smallest, step

JsonSchema = dict[str, Any]

_DIGIT: Final = "[0-9]"


def amount_pattern(least: int, most_digits: int, places: int, multiple: int = 1) -> str:
    """The pattern of decimal strings with `places` decimals that are worth at least `least` minor units.

    `most_digits` bounds the minor units' digits; `multiple` (1, or 10 with two decimals or more) is
    what the minor units must be a multiple of. `least` is itself such a multiple and more than 0.
    """
    zeros = len(str(multiple)) - 1
    free = places - zeros  # decimals that may be any digit
    shortest = str(least // multiple).zfill(free + 1)
    last = len(shortest.rstrip("0")) - 1
    choices = [_with_point(_at_least(shortest, last, int(shortest[last])), free)]
    for index in range(last - 1, -1, -1):
        if shortest[index] != "9":
            choices.append(_with_point(_at_least(shortest, index, int(shortest[index]) + 1), free))
    longer = most_digits - zeros - len(shortest)
    if longer > 0:
        whole = len(shortest) - free
        more = f"[1-9]{_DIGIT}{{{whole},{whole + longer - 1}}}"
        choices.append(more + _decimals([_DIGIT] * free))
    return f"^(?:{'|'.join(choices)}){'0' * zeros}$"


def _at_least(number: str, index: int, digit: int) -> list[str]:
    """Numbers that begin like `number` up to `index`, have at least `digit` there, and any digits after."""
    here = "9" if digit == 9 else f"[{digit}-9]"
    return [*number[:index], here, *[_DIGIT] * (len(number) - index - 1)]


def _with_point(tokens: list[str], places: int) -> str:
    whole = tokens[: len(tokens) - places]
    return "".join(whole) + _decimals(tokens[len(whole) :])


def _decimals(tokens: list[str]) -> str:
    return r"\." + "".join(tokens) if tokens else ""


def _positive(currency: str) -> str:
    return amount_pattern(1, MAX_DIGITS + digits(currency), digits(currency))


def _charged(currency: str) -> str:
    most = len(str(largest(currency)))
    return amount_pattern(smallest(currency), most, digits(currency), step(currency))


def _refunded(currency: str) -> str:
    return amount_pattern(step(currency), MAX_DIGITS + digits(currency), digits(currency), step(currency))


def _by_pattern(pattern_of: Callable[[str], str], currencies: Iterable[str]) -> list[JsonSchema]:
    """One alternative for all currencies that share a pattern."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for currency in sorted(currencies):
        groups[pattern_of(currency)].append(currency)
    return [
        {"properties": {"currency": {"enum": codes}, "value": {"pattern": pattern}}}
        for pattern, codes in sorted(groups.items(), key=lambda group: (-len(group[1]), group[1]))
    ]


POSITIVE: Final[JsonSchema] = {"anyOf": _by_pattern(_positive, SUPPORTED_CURRENCIES)}
"""Any amount above zero, in exactly its currency's digits."""

CHARGED: Final[JsonSchema] = {"anyOf": _by_pattern(_charged, SUPPORTED_CURRENCIES)}
"""An amount that Stripe charges at once: between its currency's minimum and cap, in steps it takes."""

REFUNDED: Final[JsonSchema] = {"anyOf": _by_pattern(_refunded, SUPPORTED_CURRENCIES)}
"""An amount that Stripe refunds: above zero, in steps it takes."""

CURRENCY: Final[JsonSchema] = {
    "type": "string",
    "enum": sorted(SUPPORTED_CURRENCIES),
    "description": "ISO 4217, in upper case: a currency that Stripe charges.",
}
