"""What the console's charts and its form of a drive compute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.clock import rfc3339
from backbone.money import as_json, parse
from gateway.console.charts import MAX_MINUTES, MAX_SIZES, by_source, gift_sizes, money_by_minute
from gateway.console.drive_form import amount_of, fields_of, request_of

NOW = datetime(2030, 1, 7, 12, 0, 30, tzinfo=UTC)


def row(sequence: int, minutes_ago: int, units: int, kind: str = "donation.counted") -> dict[str, Any]:
    at = rfc3339(NOW - timedelta(minutes=minutes_ago))
    return {"sequence": sequence, "type": kind, "at": at, "amount": as_json(units, "USD")}


def test_minutes_without_gifts_are_drawn_and_other_rows_are_not_counted() -> None:
    rows = [row(1, 3, 1000), row(2, 3, 500), row(3, 1, 9900, "donation.refunded"), row(4, 0, 500)]
    bars = money_by_minute(rows, "USD", NOW)
    assert [bar.value for bar in bars] == [1500, 0, 0, 500]
    assert [bar.per_mille for bar in bars] == [1000, 0, 0, 333]


def test_a_minute_whose_first_rows_were_not_read_is_left_out() -> None:
    rows = [row(700, 2, 1000), row(701, 1, 500)]
    assert [bar.value for bar in money_by_minute(rows, "USD", NOW)] == [500, 0]


def test_at_most_thirty_minutes_are_drawn() -> None:
    bars = money_by_minute([row(1, 500, 1000), row(2, 29, 700)], "USD", NOW)
    assert len(bars) == MAX_MINUTES
    assert bars[0].value == 700
    assert money_by_minute([], "USD", NOW) == []


def test_gifts_are_counted_by_steps_of_one_two_five() -> None:
    rows = [row(n, 0, units) for n, units in enumerate((100, 199, 200, 499, 500, 1000), 1)]
    assert [(bar.start, bar.value) for bar in gift_sizes(rows, "USD")] == [
        (100, 2), (200, 2), (500, 1), (1000, 1),
    ]  # fmt: skip


@given(st.lists(st.integers(1, 10**12), max_size=60))
def test_every_gift_is_in_one_step_and_there_are_few_steps(amounts: list[int]) -> None:
    bars = gift_sizes([row(n, 0, units) for n, units in enumerate(amounts, 1)], "USD")
    assert sum(bar.value for bar in bars) == len(amounts)
    assert len(bars) <= MAX_SIZES
    assert all(0 < bar.per_mille <= 1000 for bar in bars)


def test_sources_keep_their_order_and_negative_sums_have_no_bar() -> None:
    places = [
        {"rank": 1, "platform": "tiktok", "campaign": "#x", "raised": as_json(900, "USD"), "donations": 2},
        {"rank": 2, "platform": None, "campaign": None, "raised": as_json(0, "USD"), "donations": 0},
    ]
    assert [(name, gifts, bar.per_mille) for name, gifts, bar in by_source(places, "USD")] == [
        ("tiktok / #x", 2, 1000), ("", 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "currency", "value"),
    [
        ("5", "USD", "5.00"), ("5.5", "USD", "5.50"), (" 0010 ", "USD", "10.00"), ("٥٠٫٢٥", "USD", "50.25"),
        ("1٬000", "USD", "1000.00"), ("5", "KWD", "5.000"), ("5", "JPY", "5"),
        ("5.001", "USD", "5.001"), ("-5", "USD", "-5"), ("1,5", "USD", "1,5"), ("five", "USD", "five"),
        ("5²", "USD", "5²"), ("⑤", "USD", "⑤"),
    ],
)  # fmt: skip
def test_amounts_get_their_currencys_decimals_or_stay_as_written(
    written: str, currency: str, value: str
) -> None:
    assert amount_of(written, currency) == value


@given(st.integers(0, 10**14 - 1), st.sampled_from(["USD", "KWD", "JPY"]))
def test_an_exact_amount_is_not_changed(units: int, currency: str) -> None:
    value = as_json(units, currency)["value"]
    assert parse(amount_of(value, currency), currency) == units


@given(st.lists(st.integers(1, 10_000), max_size=5))
def test_shares_survive_the_form(shares: list[int]) -> None:
    drive = {
        "slug": "a", "title": "x", "currency": "USD", "goal": as_json(100, "USD"),
        "beneficiaries": [{"name": "A", "share_bps": one} for one in shares],
    }  # fmt: skip
    again = request_of(fields_of(drive), "USD")["beneficiaries"]
    assert [one["share_bps"] for one in again] == shares
