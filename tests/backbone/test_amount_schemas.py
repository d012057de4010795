from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.amount_schemas import CHARGED, POSITIVE, REFUNDED, JsonSchema
from backbone.money import Money, decimal_string
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, largest, smallest, step
from services.pledges.domain import AmountNotCharged, AmountTooLarge, AmountTooSmall, check_chargeable

CURRENCIES = sorted(SUPPORTED_CURRENCIES)


def patterns(schema: JsonSchema) -> dict[str, re.Pattern[str]]:
    """The pattern of each currency's values; no currency is in two alternatives."""
    found: dict[str, Any] = {}
    for one in schema["anyOf"]:
        for currency in one["properties"]["currency"]["enum"]:
            assert currency not in found
            found[currency] = re.compile(one["properties"]["value"]["pattern"])
    return found


def is_charged(units: int, currency: str) -> bool:
    try:
        check_chargeable(Money(units, currency))
    except (AmountTooSmall, AmountTooLarge, AmountNotCharged):
        return False
    return True


RULES: dict[str, tuple[dict[str, re.Pattern[str]], Callable[[int, str], bool]]] = {
    "positive": (patterns(POSITIVE), lambda units, currency: units > 0),
    "charged": (patterns(CHARGED), is_charged),
    "refunded": (patterns(REFUNDED), lambda units, currency: units > 0 and units % step(currency) == 0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("currency", CURRENCIES)
def test_patterns_hold_at_the_limits_of_every_currency(currency: str, rule: str) -> None:
    found, allowed = RULES[rule]
    edges = (0, step(currency), smallest(currency), largest(currency), 10**8, 10**12)
    for units in {edge + by for edge in edges for by in (-10, -1, 0, 1, 10) if edge + by >= 0}:
        value = decimal_string(units, currency)
        assert bool(found[currency].search(value)) == allowed(units, currency), value


@given(st.sampled_from(CURRENCIES), st.integers(0, 10**13), st.sampled_from(sorted(RULES)))
def test_patterns_allow_the_amounts_that_validation_allows(currency: str, units: int, rule: str) -> None:
    found, allowed = RULES[rule]
    value = decimal_string(units, currency)
    assert bool(found[currency].search(value)) == allowed(units, currency)


@pytest.mark.parametrize(
    "value", ["25", "25.0", "25.000", "025.00", "+25.00", "-25.00", "2.5e1", " 25.00", "٢٥.٠٠"]
)
def test_patterns_refuse_other_ways_to_write_an_amount(value: str) -> None:
    for found, _ in RULES.values():
        assert found["USD"].search(value) is None
