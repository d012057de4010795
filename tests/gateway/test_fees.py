"""The setting of the fee that donors may add. `test_donate_in_browser.py` tests the sums."""

from __future__ import annotations

import pytest

from backbone.amount_list import amounts_by_currency
from gateway.fees import FeeRule
from gateway.settings import GatewaySettings


def test_fixed_parts_are_minor_units_by_currency() -> None:
    assert amounts_by_currency("0.30 USD, 0.250 KWD,30 JPY") == {"USD": 30, "KWD": 250, "JPY": 30}
    assert amounts_by_currency("") == {}


@pytest.mark.parametrize(
    "text",
    ["0.3 USD", "0.30", "USD 0.30", "0.30 USD 0.25 EUR", "-0.30 USD", "0.30 XXX", "0.30 USD, 0.2 USD"],
)
def test_a_setting_that_is_not_understood_stops_the_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|exactly 2"):
        GatewaySettings(fee_fixed=text)


def test_a_rule_for_each_currency() -> None:
    rule = FeeRule(290, {"USD": 30})
    assert rule.of("USD") == {"bps": 290, "fixed": 30, "step": 1}
    assert rule.of("KWD") == {"bps": 290, "fixed": 0, "step": 10}
    assert FeeRule(0, {"USD": 30}).of("USD") is None
