"""A queue longer than the limit: donors pay through Payment Links; all totals agree, also after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.embedded_system import STRIPE_KEY, EmbeddedSystem, new_idempotency_key, running
from tests.waiting import until

LIMITED = {
    "ATAA_STRIPE_RATE_PER_S": "4",
    "ATAA_CHECKOUT_OVERFLOW_AFTER_S": "1",
    "ATAA_STRIPE_SWEEP_S": "3600",
    "ATAA_STRIPE_BACKFILL_S": "1",
}
CRASHES = ["payments.links.after_call:2", "payments.overflow.before_commit:1"]


async def pledge_at_once(system: EmbeddedSystem, number: int) -> list[dict[str, Any]]:
    """Make pledges of 25 dollars for the creator, without waiting for their checkouts."""
    body = {"amount": {"currency": "USD", "value": "25.00"}, "creator": "star"}
    made = await asyncio.gather(
        *(
            system.admin("POST", "/v1/drives/winter/pledges", body, Idempotency_Key=new_idempotency_key())
            for _ in range(number)
        )
    )
    assert {answer.status for answer in made} == {201}
    return [dict(answer.body) for answer in made]


async def opened(system: EmbeddedSystem, pledge: dict[str, Any]) -> dict[str, Any]:
    """The pledge with its checkout."""

    async def there() -> dict[str, Any] | None:
        found = await system.admin("GET", f"/v1/pledges/{pledge['id']}")
        return dict(found.body) if found.body.get("checkout") else None

    found: dict[str, Any] = await until(there)
    return found


async def links(system: EmbeddedSystem) -> int:
    """The number of links at the sandbox."""
    url = f"{system.sandbox_url}/v1/payment_links?limit=100"
    return len((await system.request("GET", url, Authorization=f"Bearer {STRIPE_KEY}")).body["data"])


async def pay_a_long_queue(system: EmbeddedSystem, pledges: list[dict[str, Any]]) -> None:
    found = [await opened(system, each) for each in pledges]
    through_links = [each for each in found if "client_reference_id" in each["checkout"]["url"]]
    assert through_links
    assert all(each["status"] == "open" and each["queue"] is None for each in found)
    await asyncio.gather(*(system.pay(each) for each in found))
    raised = f"{25 * len(pledges)}.00"
    totals = await system.wait_for_raised("winter", raised)
    assert totals["donations"] == len(pledges)
    assert await system.wait_until_books_agree() == {"USD": raised}
    board = await system.request("GET", "/v1/drives/winter/leaderboards/creators?window=all")
    assert board.body["data"][0]["raised"]["value"] == raised


async def test_a_long_queue_is_paid_through_links(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa", **LIMITED) as system:
        await system.open_drive("winter")
        await until(lambda: has_links(system, 5))
        await pay_a_long_queue(system, await pledge_at_once(system, 16))


async def has_links(system: EmbeddedSystem, number: int) -> bool:
    return await links(system) == number


@pytest.mark.parametrize("point", CRASHES)
async def test_kill_while_links_are_prepared_or_given_loses_nothing(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa", **LIMITED) as system:
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        if "links" in point:
            opening = asyncio.create_task(system.open_drive("winter"))
            await system.wait_until_killed()
            await asyncio.gather(opening, return_exceptions=True)
            await system.start()
            await until(lambda: has_links(system, 5))
            pledges = await pledge_at_once(system, 16)
        else:
            await system.open_drive("winter")
            await until(lambda: has_links(system, 5))
            pledges = await pledge_at_once(system, 16)
            await system.wait_until_killed()
            await system.start()
        assert await links(system) == 5
        await pay_a_long_queue(system, pledges)
