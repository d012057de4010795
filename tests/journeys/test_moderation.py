"""Moderation through the public API of a whole system: a decision reaches every read, also after a kill."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

BAD = "Call me: 050 123 4567"


async def decide(system: EmbeddedSystem, pledge: dict[str, Any], action: str, **body: Any) -> Any:
    answer = await system.admin("POST", f"/v1/messages/{pledge['id']}/{action}", body)
    assert answer.status == 200, answer.body
    return answer.body


async def shown(system: EmbeddedSystem, drive: str) -> set[tuple[Any, Any]]:
    """The texts of the newest donation, in the totals and in the list of donations."""
    recent = (await system.totals(drive))["recent"][:1]
    page = (await system.request("GET", f"/v1/drives/{drive}/donations")).body["data"][:1]
    return {(one["name"], one["message"]) for one in [*recent, *page]}


async def show(system: EmbeddedSystem, drive: str, name: str | None, message: str | None) -> None:
    await until(lambda: _is_shown(system, drive, {(name, message)}))


async def _is_shown(system: EmbeddedSystem, drive: str, texts: set[tuple[Any, Any]]) -> bool:
    return await shown(system, drive) == texts


async def test_decision_reaches_totals_and_donations(system: EmbeddedSystem) -> None:
    await system.open_drive("moderated")
    pledge = await system.donate("moderated", donor={"name": "Layla"}, message=BAD)
    await system.wait_for_raised("moderated", "25.00")
    await show(system, "moderated", "Layla", None)
    held = (await system.admin("GET", "/v1/drives/moderated/messages")).body["data"]
    assert [(one["pledge"], one["reasons"]) for one in held] == [(pledge["id"], {"message": ["phone"]})]
    for action, name, message in (
        ("approve", "Layla", BAD),
        ("hide", None, None),
        ("pin", "Layla", BAD),
        ("hold", None, None),
    ):
        await decide(system, pledge, action)
        began = asyncio.get_running_loop().time()
        await show(system, "moderated", name, message)
        assert asyncio.get_running_loop().time() - began < 5.0  # one second on a machine of its own
    assert (await system.totals("moderated"))["raised"]["value"] == "25.00"
    history = (await system.admin("GET", f"/v1/messages/{pledge['id']}/history")).body["data"]
    assert [one["to"] for one in history] == ["held", "approved", "hidden", "pinned", "held"]
    assert {one["key"] for one in history} == {None, "key_admin"}


@pytest.mark.parametrize("point", ["pledges.moderation.after_commit:1"])
async def test_decision_is_published_after_a_kill(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("killed")
        pledge = await system.donate("killed", donor={"name": "Layla"}, message="Salam")
        await system.wait_for_raised("killed", "25.00")
        await show(system, "killed", "Layla", "Salam")
        await until(system.is_drained)
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        with pytest.raises(aiohttp.ClientError):
            await decide(system, pledge, "hide", seen_version=0)
        await system.wait_until_killed()
        await system.start()
        await show(system, "killed", None, None)
        again = await decide(system, pledge, "hide", seen_version=0)  # the moderator's retry
        assert (again["state"], again["version"]) == ("hidden", 1)
        await system.wait_until_books_agree()


async def test_pinned_message_and_alerts_reach_totals(system: EmbeddedSystem) -> None:
    await system.open_drive("on-screen")
    pledge = await system.donate("on-screen", donor={"name": "Layla"}, message="Salam")
    await system.wait_for_raised("on-screen", "25.00")
    for action, message in (("pin", "Salam"), ("hide", None), ("pin", "Salam"), ("unpin", None)):
        await decide(system, pledge, action)
        await until(lambda message=message: _is_pinned(system, message))  # type: ignore[misc]
    controlled = await system.admin("POST", "/v1/drives/on-screen/alerts/pause")
    assert (controlled.status, controlled.body["paused"]) == (200, True)
    await until(lambda: _has_alerts(system, "on-screen", version=1, paused=True))
    again = await system.admin("POST", "/v1/drives/on-screen/alerts/replay", {"pledge": pledge["id"]})
    assert (again.status, again.body["version"]) == (200, 2)

    async def replayed() -> dict[str, Any] | None:
        alerts = (await system.totals("on-screen"))["alerts"]
        return dict(alerts["replay"]["donation"]) if alerts["replay"] else None

    donation = await until(replayed)
    assert (donation["name"], donation["message"]) == ("Layla", "Salam")


async def _is_pinned(system: EmbeddedSystem, message: str | None) -> bool:
    pinned = (await system.totals("on-screen"))["pinned"]
    return (pinned and pinned["message"]) == message


async def _has_alerts(system: EmbeddedSystem, drive: str, **state: Any) -> bool:
    alerts = (await system.totals(drive))["alerts"]
    return {name: alerts[name] for name in state} == state


@pytest.mark.parametrize("point", ["pledges.alerts.after_commit:1"])
async def test_control_of_alerts_is_published_after_a_kill(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("killed")
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        with pytest.raises(aiohttp.ClientError):
            await system.admin("POST", "/v1/drives/killed/alerts/pause")
        await system.wait_until_killed()
        await system.start()
        await until(lambda: _has_alerts(system, "killed", version=1, paused=True))
        again = await system.admin("POST", "/v1/drives/killed/alerts/pause")  # the moderator's retry
        assert (again.status, again.body["version"]) == (200, 1)
