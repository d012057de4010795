"""Pledges in other currencies than their drive's: what is accepted, and at which rate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backbone.clock import FrozenClock
from backbone.contracts import ExchangeRateSet, PledgeMade
from backbone.money import Money
from tests.pledges.harness import Harness, pledges_harness, usd
from tests.waiting import until

NOW = datetime(2030, 1, 7, 18, tzinfo=UTC)
KWD = {"currency": "KWD", "value": "10.000"}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with pledges_harness(tmp_path, FrozenClock(NOW)) as harness:
        yield harness


def rate(text: str, version: int = 1, as_of: datetime = NOW) -> ExchangeRateSet:
    return ExchangeRateSet(
        source_currency="KWD", target_currency="USD", version=version, rate=text, as_of=as_of, changed_at=NOW
    )


async def consume(harness: Harness, *events: ExchangeRateSet) -> None:
    async def consumed() -> bool:
        return bool((await harness.get("/internal/quiet")).json()["behind"] == 0)

    await harness.publish(*events)
    async with harness.running_workers("pledges.consumer"):
        await until(consumed)


async def problem(harness: Harness, amount: dict[str, str]) -> tuple[int, str]:
    reply = await harness.pledge({"amount": amount})
    return reply.status, str(reply.json()["type"]).removeprefix("/problems/")


async def test_a_currency_is_accepted_where_the_drive_takes_it_and_a_rate_is_known(harness: Harness) -> None:
    await harness.drive(currencies=["KWD"])
    assert await problem(harness, {"currency": "EUR", "value": "10.00"}) == (422, "currency-not-accepted")
    assert await problem(harness, KWD) == (409, "no-exchange-rate")
    await consume(harness, rate("6", 2), rate("3.2581", 3), rate("5", 1))
    made = await harness.pledge({"amount": KWD})
    assert (made.status, made.json()["amount"]) == (201, KWD)
    event = (await harness.announced())[-1]
    assert isinstance(event, PledgeMade)
    assert (event.amount, event.reporting_amount) == (Money(10_000, "KWD"), Money(3_258, "USD"))
    assert (await harness.pledge()).status == 201


async def test_a_stale_rate_is_none(harness: Harness) -> None:
    await harness.drive(currencies=["KWD"])
    await consume(harness, rate("3.2581", as_of=NOW - timedelta(days=8)))
    assert await problem(harness, KWD) == (409, "no-exchange-rate")


async def test_the_rates_that_intake_accepts_are_told_to_the_gateway(harness: Harness) -> None:
    asked = ["KWD/USD", "AED/USD", "USD/USD", "x", ""]
    assert await harness.post_internal("/internal/rates", pairs=asked) == {}
    await consume(harness, rate("3.2581"))
    assert await harness.post_internal("/internal/rates", pairs=asked) == {"KWD/USD": "3.2581"}
    await consume(harness, rate("3.3", 2, NOW - timedelta(days=8)))
    assert await harness.post_internal("/internal/rates", pairs=asked) == {}


async def test_an_amount_that_is_worth_nothing_is_too_small(harness: Harness) -> None:
    await harness.drive(currencies=["KWD"])
    await consume(harness, rate("0.0000001"))
    assert await problem(harness, KWD) == (422, "amount-too-small")


@pytest.mark.parametrize("currencies", [["USD"], ["KWD", "KWD"], ["XQQ"], ["kwd"], "KWD", [1]])
async def test_invalid_currencies_are_refused(harness: Harness, currencies: object) -> None:
    body = {
        "slug": "w", "title": "W", "currency": "USD", "goal": usd("1.00"), "currencies": currencies,
    }  # fmt: skip
    assert (await harness.post("/v1/drives", body)).status == 422


async def test_an_open_drive_takes_more_currencies_and_gives_none_up(harness: Harness) -> None:
    await harness.drive(currencies=["KWD"])
    more = await harness.patch("/v1/drives/winter", {"currencies": ["AED", "KWD"]})
    assert (more.status, more.json()["currencies"]) == (200, ["AED", "KWD"])
    less = await harness.patch("/v1/drives/winter", {"currencies": ["AED"]})
    assert (less.status, less.json()["type"]) == (409, "/problems/drive-field-fixed")
