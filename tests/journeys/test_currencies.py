"""A drive in dollars that takes five other currencies, through the public API."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backbone.clock import rfc3339
from backbone.exchange_rates import converted
from backbone.money import decimal_string, parse
from tests.journeys.embedded_system import Answer, EmbeddedSystem, running
from tests.journeys.test_operators_command import ataa
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

RATES = {"KWD": "3.2581", "AED": "0.27229408", "SAR": "0.2666", "EUR": "1.0837", "JPY": "0.0064531"}
GIFTS = {"KWD": "10.010", "AED": "123.45", "SAR": "77.77", "EUR": "33.33", "JPY": "4567"}
REFUNDS = {"KWD": "3.330", "AED": "0.01", "EUR": "11.11", "JPY": "1000"}


async def set_rate(system: EmbeddedSystem, source: str, rate: str, **more: Any) -> Answer:
    body = {"rate": rate, "as_of": rfc3339(datetime.now(UTC)), **more}
    return await system.admin("PUT", f"/v1/rates/{source}/USD", body)


async def open_many(system: EmbeddedSystem, slug: str) -> None:
    for currency, rate in RATES.items():
        assert (await set_rate(system, currency, rate)).status == 200
    await system.open_drive(slug, currencies=sorted(RATES))
    await until(system.is_drained)  # pledges knows the rates


def worth(amounts: dict[str, str]) -> int:
    return sum(
        converted(parse(value, currency), currency, "USD", RATES[currency])
        for currency, value in amounts.items()
    )


def left(currency: str) -> str:
    units = parse(GIFTS[currency], currency) - parse(REFUNDS.get(currency, GIFTS[currency]), currency)
    return decimal_string(units, currency)


async def test_gifts_in_five_currencies_count_at_their_frozen_rates(system: EmbeddedSystem) -> None:
    refused = await system.admin("POST", "/v1/drives", {
        "slug": "own", "title": "Own", "currency": "USD", "goal": {"currency": "USD", "value": "1.00"},
        "currencies": ["USD"],
    })  # fmt: skip
    assert refused.status == 422
    await open_many(system, "many")
    pledges = {
        currency: await system.donate("many", value, currency=currency) for currency, value in GIFTS.items()
    }
    await system.donate("many", "25.00")
    total = 2_500 + worth(GIFTS)
    totals = await system.wait_for_raised("many", decimal_string(total, "USD"))
    assert all(one["reporting_amount"]["currency"] == "USD" for one in totals["recent"])
    listed = (await system.request("GET", "/v1/drives/many/donations")).body["data"]
    newest = {one["amount"]["currency"]: one for one in listed}
    assert newest["KWD"]["amount"] == {"currency": "KWD", "value": "10.010"}
    assert newest["KWD"]["reporting_amount"] == {"currency": "USD", "value": "32.61"}
    assert newest["USD"]["reporting_amount"] == newest["USD"]["amount"]
    assert newest.keys() == {*GIFTS, "USD"}
    assert (await set_rate(system, "KWD", "3.3")).status == 200
    assert (await set_rate(system, "KWD", "33")).status == 409
    for currency, value in REFUNDS.items():
        amount = {"amount": {"currency": currency, "value": value}}
        path = f"/v1/pledges/{pledges[currency]['id']}/refunds"
        assert (await system.admin("POST", path, amount)).status == 201
    whole = {"amount": {"currency": "SAR", "value": GIFTS["SAR"]}}
    assert (await system.admin("POST", f"/v1/pledges/{pledges['SAR']['id']}/refunds", whole)).status == 201
    kept = {currency: left(currency) for currency in GIFTS}
    raised = decimal_string(2_500 + worth(kept), "USD")
    await system.wait_for_raised("many", raised)
    await system.wait_until_books_agree()
    assert await system.internal("leaderboard", "/internal/differences") == {"data": []}
    statement = (await system.admin("GET", "/v1/drives/many/statement")).body
    assert statement["currencies"][0]["raised"] == {"currency": "USD", "value": raised}
    listed = (await system.admin("GET", "/v1/payments?drive=many")).body["data"]
    rates = {one["captured"]["currency"]: one["rate"] for one in listed}
    assert rates == RATES | {"USD": "1"}
    log = (await system.request("GET", "/v1/drives/many/events?after=0&limit=100")).body["data"]
    assert log[-1]["raised_after"] == {"currency": "USD", "value": raised}
    counted = [row for row in log if row["type"] == "donation.counted"]
    assert {row["amount"]["currency"]: row["amount"]["value"] for row in counted} == GIFTS | {"USD": "25.00"}
    audited = await ataa(system, "audit", "many", "--json")
    assert (audited.status, audited.json["differences"]) == (0, [])


@pytest.mark.parametrize(
    "point",
    [
        "payments.rates.after_commit:6",
        "payments.applier.before_commit:2",
        "payments.applier.after_commit:2",
        "leaderboard.consumer.before_commit:2",
    ],
)
async def test_kill_counts_every_gift_once_at_its_rate(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa") as system:
        await open_many(system, "crash")
        system.kill()
        await system.start(ATAA_CRASH_AT=point.replace(":6", ":1"))
        giving = asyncio.create_task(_give(system, point))
        await system.wait_until_killed()
        await system.start()
        await giving
        gifts = {currency: GIFTS[currency] for currency in ("KWD", "JPY")}
        await system.wait_for_raised("crash", decimal_string(worth(gifts), "USD"))
        await system.wait_until_books_agree()
        assert await system.internal("leaderboard", "/internal/differences") == {"data": []}


async def _give(system: EmbeddedSystem, point: str) -> None:
    """Give in two currencies; first set a rate again where the process dies after that."""
    if "rates" in point:
        with contextlib.suppress(aiohttp.ClientError):
            await set_rate(system, "AED", "0.28")
        await until(lambda: _is_set(system))

    async def first_is_shown() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            answer = await system.request("GET", "/v1/drives/crash/totals")
            return answer.status == 200 and answer.body["donations"] == 1
        return False

    await system.donate("crash", GIFTS["KWD"], currency="KWD")
    await until(first_is_shown)
    await system.donate("crash", GIFTS["JPY"], currency="JPY")


async def _is_set(system: EmbeddedSystem) -> bool:
    try:
        listed = await system.admin("GET", "/v1/rates")
    except aiohttp.ClientError:
        return False
    rates = {one["from"]: one["rate"] for one in listed.body["data"]} if listed.status == 200 else {}
    return rates.get("AED") == "0.28"


async def test_kill_after_the_list_was_read_reads_it_again(tmp_path: Path) -> None:
    file = tmp_path / "rates.xml"
    day = datetime.now(UTC).date().isoformat()
    file.write_text(
        f"<x><Cube><Cube time='{day}'><Cube currency='USD' rate='1.1'/>"
        "<Cube currency='KWD' rate='0.33'/></Cube></Cube></x>"
    )
    async with running(tmp_path / "ataa") as system:
        system.kill()
        await system.start(ATAA_CRASH_AT="payments.rates.after_read:1", ATAA_RATES=str(file))
        await system.wait_until_killed()
        await system.start(ATAA_RATES=str(file))
        await system.open_drive("listed", currencies=["KWD"])
        await until(system.is_drained)
        await system.donate("listed", "10.000", currency="KWD")
        await system.wait_for_raised("listed", "33.33")
        await system.wait_until_books_agree()
