"""A sponsor's pool through the public API: made, used by paid gifts, given back by refunds, ended."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


def pool(cap: str, **other: Any) -> dict[str, Any]:
    return {"sponsor": "Acme", "cap": usd(cap), "ratio": "1.00", **other}


async def make(system: EmbeddedSystem, drive: str, body: dict[str, Any]) -> str:
    made = await system.admin("POST", f"/v1/drives/{drive}/matching-pools", body)
    assert made.status == 201, made.body
    return str(made.body["id"])


async def pools(system: EmbeddedSystem, drive: str) -> list[tuple[str, str, str]]:
    listed = await system.admin("GET", f"/v1/drives/{drive}/matching-pools")
    return [(one["used"]["value"], one["remaining"]["value"], one["state"]) for one in listed.body["data"]]


async def test_sponsor_doubles_gifts_up_to_the_cap(system: EmbeddedSystem) -> None:
    await system.open_drive("doubled", milestones=[{"title": "Forty", "amount": usd("40.00")}])
    first = await make(system, "doubled", pool("30.00", per_gift_cap=usd("20.00")))
    stars = await make(system, "doubled", pool("5.00", ratio="0.10", creator="star", sponsor="النجوم"))
    gift = await system.donate("doubled", "25.00", creator="star")
    totals = await system.wait_for_raised("doubled", "47.50", matched="22.50")
    acme, star = totals["matching"]
    assert acme == {
        "id": first, "sponsor": "Acme", "cap": usd("30.00"), "used": usd("20.00"), "ratio": "1.00",
        "creator": None,
    }  # fmt: skip
    assert star == {
        "id": stars, "sponsor": "النجوم", "cap": usd("5.00"), "used": usd("2.50"), "ratio": "0.10",
        "creator": totals["leaders"][0]["creator"],
    }  # fmt: skip
    assert (totals["donations"], totals["leaders"][0]["raised"]) == (1, usd("25.00"))
    assert totals["milestones"][0]["reached_at"] is not None
    await system.donate("doubled", "25.00")
    await system.wait_for_raised("doubled", "82.50", matched="32.50")
    assert await pools(system, "doubled") == [("30.00", "0.00", "exhausted"), ("2.50", "2.50", "active")]
    refund = await system.admin("POST", f"/v1/pledges/{gift['id']}/refunds", {"amount": usd("12.50")})
    assert refund.status == 201
    await system.wait_for_raised("doubled", "58.75", matched="21.25")
    assert (await system.admin("POST", f"/v1/matching-pools/{first}/end")).body["state"] == "ended"
    await system.donate("doubled", "10.00")
    totals = await system.wait_for_raised("doubled", "68.75", matched="21.25")
    assert [one["id"] for one in totals["matching"]] == [stars]
    log = (await system.request("GET", "/v1/drives/doubled/events?after=0&limit=100")).body["data"]
    matched = [(row["type"], row["amount"]["value"]) for row in log if row["type"].startswith("matching.")]
    total = sum(float(value) * (1 if kind == "matching.applied" else -1) for kind, value in matched)
    assert total == 21.25
    assert log[-1]["raised_after"] == usd("68.75")
    await system.wait_until_books_agree()
    assert await system.internal("leaderboard", "/internal/differences") == {"data": []}


async def give_three(system: EmbeddedSystem) -> None:
    """Give once and, when it is shown, twice at once: so payments publishes at least two batches."""

    async def first_is_shown() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            answer = await system.request("GET", "/v1/drives/crash/totals")
            return answer.status == 200 and answer.body["donations"] == 1
        return False

    await system.donate("crash", "25.00")
    await until(first_is_shown, 2 * PATIENCE_S)
    await asyncio.gather(*(system.donate("crash", "25.00") for _ in range(2)))


@pytest.mark.parametrize(
    "point",
    [
        "payments.applier.before_commit:2",
        "payments.applier.after_commit:2",
        "payments.outbox.after_ack:2",
        "leaderboard.consumer.before_commit:2",
    ],
)
async def test_kill_matches_every_gift_once(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("crash")
        await make(system, "crash", pool("60.00"))
        await until(system.is_drained)
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        giving = asyncio.create_task(give_three(system))
        await system.wait_until_killed()
        await system.start()
        await giving
        await system.wait_for_raised("crash", "135.00", matched="60.00")
        await system.wait_until_books_agree()
        assert await pools(system, "crash") == [("60.00", "0.00", "exhausted")]
        assert await system.internal("leaderboard", "/internal/differences") == {"data": []}
