"""Changing drives, cancelling and listing pledges, through the public API of a whole system."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_changed_drive_appears_in_totals_and_reaches_its_milestone(system: EmbeddedSystem) -> None:
    await system.open_drive("patched", milestones=[{"title": "all", "amount": _usd("9000.00")}])
    await system.donate("patched", "30.00")
    await system.wait_for_raised("patched", "30.00")
    change = {
        "title": {"en": "Winter again"},
        "goal": _usd("60.00"),
        "milestones": [
            {"title": "first", "amount": _usd("20.00")},
            {"title": "all", "amount": _usd("9000.00")},
        ],
    }
    changed = await system.admin("PATCH", "/v1/drives/patched", change)
    assert changed.status == 200, changed.body
    assert {name: changed.body[name] for name in change} == change

    async def shown() -> dict[str, Any] | None:
        totals = await system.totals("patched")
        return totals if totals["percent"] == 50.0 else None

    totals = await until(shown)
    assert (totals["title"], totals["goal"]) == (change["title"], change["goal"])
    first, whole = totals["milestones"]
    assert first["title"] == "first"
    assert first["reached_at"] is not None
    assert whole["reached_at"] is None
    log = (await system.request("GET", "/v1/drives/patched/events?after=0")).body["data"]
    assert [row["type"] for row in log].count("milestone.reached") == 1
    fixed = await system.admin("PATCH", "/v1/drives/patched", {"slug": "other"})
    assert (fixed.status, fixed.body["type"]) == (409, "/problems/drive-field-fixed")
    malformed = await system.admin("PATCH", "/v1/drives/patched", b"{")
    assert (malformed.status, malformed.body["type"]) == (400, "/problems/malformed-json")


async def test_cancelled_pledge_cannot_be_paid_and_leaves_the_pledged_total(system: EmbeddedSystem) -> None:
    await system.open_drive("cancels")
    pledge = await system.pledge("cancels", "25.00", reference="order 7")
    await until(lambda: _has_pledged(system, "cancels", "25.00"))
    path = f"/v1/pledges/{pledge['id']}"
    cancelled = await system.admin("POST", f"{path}/cancel")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled"), cancelled.body
    assert (await system.admin("POST", f"{path}/cancel")).status == 200
    await until(lambda: _has_pledged(system, "cancels", "0.00"))
    await until(system.is_drained)
    paid = await system.request("POST", pledge["checkout"]["url"] + "/pay", {"card": "4242424242424242"})
    assert paid.status == 410
    await until(lambda: _has_status(system, path, "cancelled", None))
    await until(system.is_drained)
    assert await _has_status(system, path, "cancelled", None)  # also once the session's end is recorded
    found = await system.admin("GET", "/v1/pledges?reference=order%207&status=cancelled")
    assert [row["id"] for row in found.body["data"]] == [pledge["id"]]
    assert found.body["data"][0] == (await system.admin("GET", path)).body
    await system.wait_until_books_agree()


async def test_paid_pledge_cannot_be_cancelled_and_is_listed_as_paid(
    system: EmbeddedSystem,
) -> None:
    await system.open_drive("listed")
    paid = await system.donate("listed", "10.00")
    await system.wait_for_raised("listed", "10.00")
    await system.wait_until_books_agree()
    refused = await system.admin("POST", f"/v1/pledges/{paid['id']}/cancel")
    assert (refused.status, refused.body["type"]) == (409, "/problems/pledge-not-open")
    waiting = await system.pledge("listed", "5.00")
    page = (await system.admin("GET", "/v1/pledges?drive=listed&limit=1")).body
    assert [row["id"] for row in page["data"]] == [waiting["id"]]
    assert page["data"][0]["checkout"]["url"] == waiting["checkout"]["url"]
    rest = (await system.admin("GET", f"/v1/pledges?drive=listed&limit=1&after={page['next']}")).body
    assert [(row["id"], row["status"]) for row in rest["data"]] == [(paid["id"], "paid")]
    assert rest["next"] is None


async def test_publishable_key_cannot_list_or_cancel_pledges(system: EmbeddedSystem) -> None:
    await system.open_drive("public")
    pledge = await system.pledge("public")
    body = {"kind": "publishable", "origins": ["https://partner.example"]}
    key = (await system.admin("POST", "/v1/keys", body)).body["key"]
    known = {"Authorization": f"Bearer {key}", "Origin": "https://partner.example"}
    assert (await system.request("GET", "/v1/pledges", **known)).status == 403
    assert (await system.request("POST", f"/v1/pledges/{pledge['id']}/cancel", **known)).status == 403
    assert (await system.request("GET", "/v1/pledges")).status == 401


@pytest.mark.parametrize(
    "point",
    [
        "pledges.cancel.after_commit:2",
        "payments.cancelling.after_call:2",
        "payments.consumer.before_commit:3",
        "payments.consumer.after_commit:3",
        "payments.applier.after_commit:2",
    ],
)
async def test_kill_while_pledges_are_paid_and_cancelled_neither_loses_nor_duplicates_money(
    tmp_path: Path, point: str
) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("races")
        pledges = [await system.pledge("races") for _ in range(8)]
        await until(system.is_drained)
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        acting = asyncio.gather(
            *(_cancel(system, pledge) for pledge in pledges),
            *(_try_to_pay(system, pledge, place * 0.1) for place, pledge in enumerate(pledges)),
        )
        dying = asyncio.create_task(system.wait_until_killed())
        await asyncio.wait([dying, acting], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        cancelling = asyncio.create_task(_cancel_one_by_one(system, dying))
        await dying
        await system.start()
        outcomes = await acting
        await cancelling
        books = await system.wait_until_books_agree()
        states = [(await system.admin("GET", f"/v1/pledges/{one['id']}")).body["status"] for one in pledges]
        paid = outcomes[len(pledges) :].count("paid")
        assert states.count("paid") == paid
        assert states.count("paid") + states.count("cancelled") == len(pledges)
        assert books == ({"USD": f"{25 * paid}.00"} if paid else {})
        totals = await system.wait_for_raised("races", f"{25 * paid}.00", pledged="0.00")
        assert totals["donations"] == paid
        assert "Traceback" not in system.log


async def _cancel(system: EmbeddedSystem, pledge: dict[str, Any]) -> str:
    """Cancel, retried until there is an answer."""

    async def answered() -> str | None:
        with contextlib.suppress(aiohttp.ClientError):
            answer = await system.admin("POST", f"/v1/pledges/{pledge['id']}/cancel")
            if answer.status in (200, 409):
                return "cancelled" if answer.status == 200 else "refused"
        return None

    return str(await until(answered))


async def _cancel_one_by_one(system: EmbeddedSystem, dying: asyncio.Task[None]) -> None:
    """Cancel further pledges one by one: the concurrent ones may have passed the point in one batch."""
    while not dying.done():
        await _cancel(system, await system.pledge("races"))


async def _try_to_pay(system: EmbeddedSystem, pledge: dict[str, Any], after_s: float) -> str:
    await asyncio.sleep(after_s)
    answer = await system.request("POST", pledge["checkout"]["url"] + "/pay", {"card": "4242424242424242"})
    assert answer.status in (200, 410), answer.body
    return "paid" if answer.status == 200 else "closed"


async def _has_pledged(system: EmbeddedSystem, drive: str, value: str) -> bool:
    return bool((await system.totals(drive))["by_state"]["pledged"]["value"] == value)


async def _has_status(system: EmbeddedSystem, path: str, status: str, checkout: object) -> bool:
    body = (await system.admin("GET", path)).body
    return bool((body["status"], body["checkout"]) == (status, checkout))


def _usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}
