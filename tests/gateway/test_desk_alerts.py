"""The desk's control of alerts over HTTP, up to the totals that overlays read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.test_desk import Moderator, a_key, a_message
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import until


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path) as found:
        yield found


@pytest.fixture
async def browser(system: WholeSystem) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def control(
    system: WholeSystem, browser: aiohttp.ClientSession, action: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    path = f"{system.url}/moderate/winter/alerts/{action}"
    async with browser.post(path, json=body or {}, headers={"Origin": system.url, **headers}) as reply:
        return reply.status, await reply.json()


async def alerts(system: WholeSystem) -> Any:
    async with system.session.get(f"{system.url}/v1/drives/winter/totals") as reply:
        return (await reply.json())["alerts"]


async def test_command_reaches_the_totals(system: WholeSystem, browser: aiohttp.ClientSession) -> None:
    moderator = Moderator(system, browser, "sara")
    await moderator.log_in()
    token = {"X-CSRF-Token": moderator.csrf}
    assert await alerts(system) == {"version": 0, "paused": False, "skip": None, "replay": None}
    status, state = await control(system, browser, "pause", **token)
    assert (status, state["paused"], state["version"]) == (200, True, 1)

    async def is_paused() -> bool:
        found = await alerts(system)
        return (found["paused"], found["version"]) == (True, 1)

    await until(is_paused)
    unpaid = await a_message(system)
    status, problem = await control(system, browser, "replay", {"pledge": unpaid}, **token)
    assert (status, problem["type"]) == (409, "/problems/donation-not-counted")
    assert (await control(system, browser, "stop", **token))[0] == 404
    assert (await control(system, browser, "replay", {"pledge": "x"}, **token))[0] == 422


async def test_command_needs_a_session_the_csrf_token_and_its_own_origin(
    system: WholeSystem, browser: aiohttp.ClientSession
) -> None:
    assert (await control(system, browser, "pause"))[0] == 401
    await Moderator(system, browser, "omar").log_in(await a_key(system, "other", "moderation"))
    assert (await control(system, browser, "pause"))[0] == 403
    moderator = Moderator(system, browser, "sara")
    await moderator.log_in()
    token = {"X-CSRF-Token": moderator.csrf}
    for headers in (
        {},
        {**token, "Origin": "https://evil.example"},
        {**token, "Sec-Fetch-Site": "cross-site"},
    ):
        assert (await control(system, browser, "pause", **headers))[0] == 403
    assert (await alerts(system))["version"] == 0
