"""The moderation desk over HTTP: who may use it, what it sends, and how moderators see each other."""

from __future__ import annotations

import sqlite3
import string
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backbone import ids
from gateway.desk.translations import TRANSLATIONS
from tests.gateway.console_harness import hidden_in
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.pledges.harness import a_drive
from tests.waiting import until

NAME = """<img src=x onerror="document.title='owned'">"""


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path) as found:
        yield found


async def api(system: WholeSystem, method: str, path: str, body: Any = None, key: str = ADMIN) -> Any:
    headers = {**bearer(key), "Idempotency-Key": ids.new("evt")}
    async with system.session.request(method, system.url + path, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def a_message(system: WholeSystem, name: str = NAME, message: str = "evil.com") -> str:
    body = {"amount": {"currency": "USD", "value": "25.00"}, "donor": {"name": name}, "message": message}
    status, made = await api(system, "POST", "/v1/drives/winter/pledges", body)
    assert status == 201, made
    return str(made["id"])


async def a_key(system: WholeSystem, partner: str, *scopes: str) -> str:
    body = {"kind": "secret", "partner": partner, "scopes": list(scopes)}
    return str((await api(system, "POST", "/v1/keys", body))[1]["key"])


class Moderator:
    """A browser: its cookies, its desk, and the CSRF token of its page."""

    def __init__(self, system: WholeSystem, session: aiohttp.ClientSession, desk: str) -> None:
        self._system, self._session, self._desk = system, session, desk
        self.csrf = ""

    async def log_in(self, key: str = ADMIN) -> tuple[int, str]:
        """Log in; the status and the HTML of the page that follows."""
        form = {"key": key, "to": "/moderate/winter"}
        headers = {"Origin": self._system.url}
        async with self._session.post(f"{self._system.url}/session", data=form, headers=headers) as reply:
            html = await reply.text()
            self.csrf = html.partition('data-csrf="')[2].partition('"')[0]
            return reply.status, html

    async def look(self, state: str = "held", **query: str) -> tuple[int, Any]:
        sent = {"state": state, "desk": self._desk, "name": self._desk, **query}
        path = f"{self._system.url}/moderate/winter/messages"
        async with self._session.get(path, params=sent) as reply:
            return reply.status, await reply.json()

    async def decide(self, pledge: str, action: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = {"X-CSRF-Token": self.csrf, "Origin": self._system.url, **headers}
        path = f"{self._system.url}/moderate/winter/messages/{pledge}/{action}"
        named = {"moderator": self._desk, **(body or {})}
        async with self._session.post(path, json=named, headers=sent) as reply:
            return reply.status, await reply.json()

    async def history(self, pledge: str, **query: str) -> tuple[int, Any]:
        path = f"{self._system.url}/moderate/winter/messages/{pledge}/history"
        async with self._session.get(path, params=query) as reply:
            return reply.status, await reply.json()


@pytest.fixture
async def moderators(system: WholeSystem) -> AsyncIterator[list[Moderator]]:
    """Two browsers, not logged in."""
    jars = [aiohttp.CookieJar(unsafe=True) for _ in range(2)]
    async with (
        aiohttp.ClientSession(cookie_jar=jars[0]) as one,
        aiohttp.ClientSession(cookie_jar=jars[1]) as two,
    ):
        yield [Moderator(system, one, "sara"), Moderator(system, two, "omar")]


async def test_two_moderators_see_each_other_and_one_decision_counts(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    pledge = await a_message(system)
    sara, omar = moderators
    for one in moderators:
        assert (await one.log_in())[0] == 200
    await sara.look(looking=pledge)
    _, seen = await omar.look()
    assert seen["desks"] == [{"desk": "sara", "name": "sara", "looking": pledge}]
    assert [one["pledge"] for one in seen["data"]] == [pledge]
    assert seen["data"][0]["amount_text"] == "$25"
    assert (await sara.decide(pledge, "approve", {"seen_version": 0}))[0] == 200
    status, problem = await omar.decide(pledge, "hide", {"seen_version": 0})
    assert (status, problem["type"]) == (409, "/problems/message-decided")
    _, seen = await omar.look()
    assert seen["data"] == []
    assert seen["decisions"] == [{"pledge": pledge, "version": 1, "state": "approved", "name": "sara"}]


async def test_page_escapes_its_texts_and_forbids_inline_script(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    await api(system, "PATCH", "/v1/drives/winter", {"title": NAME})
    status, html = await moderators[0].log_in()
    assert status == 200
    assert "<img" not in html
    async with moderators[0]._session.get(f"{system.url}/moderate/winter?lang=ar") as reply:
        policy = reply.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy and "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        assert 'dir="rtl"' in await reply.text()
        assert reply.headers["Cache-Control"] == "private, no-store"


async def test_desk_needs_a_session_with_the_scope_of_the_drives_owner(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    pledge = await a_message(system)
    sara, omar = moderators
    assert (await sara.look())[0] == 401
    assert (await sara.decide(pledge, "hide"))[0] == 401
    assert (await sara.log_in(await a_key(system, "default", "drives")))[0] == 403
    assert (await omar.log_in(await a_key(system, "other", "moderation")))[0] == 403
    assert (await omar.look())[0] == 403
    assert (await sara.log_in(await a_key(system, "default", "moderation")))[0] == 200
    assert (await sara.look())[0] == 200


async def test_decision_needs_the_csrf_token_and_its_own_origin(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    pledge = await a_message(system)
    sara, omar = moderators
    await sara.log_in()
    await omar.log_in()
    for headers in (
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": omar.csrf},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert (await sara.decide(pledge, "hide", **headers))[0] == 403
    _, seen = await sara.look()
    assert [one["version"] for one in seen["data"]] == [0]


async def test_request_without_a_header_or_body_of_the_page_decides_nothing(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    """What a foreign page can send with a browser's cookies: a form, or a request without own headers."""
    pledge = await a_message(system)
    sara = moderators[0]
    await sara.log_in()
    path = f"{system.url}/moderate/winter/messages/{pledge}/hide"
    own = {"Origin": system.url}
    for headers, data in (
        ({}, "{}"),
        (own, "{}"),
        ({**own, "Content-Type": "text/plain"}, "{}"),
        (own, {"csrf": sara.csrf}),
        ({"X-CSRF-Token": sara.csrf}, "{}"),
        ({"X-CSRF-Token": sara.csrf, "Origin": "null"}, "{}"),
        ({"X-CSRF-Token": sara.csrf, "Sec-Fetch-Site": "same-site"}, "{}"),
    ):
        async with sara._session.post(path, data=data, headers=headers) as reply:
            assert reply.status == 403, headers
    async with sara._session.get(path, headers={**own, "X-CSRF-Token": sara.csrf}) as reply:
        assert reply.status == 405
    _, seen = await sara.look()
    assert [one["version"] for one in seen["data"]] == [0]


async def test_session_of_another_partner_reaches_nothing_and_is_not_seen(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    pledge = await a_message(system)
    sara, omar = moderators
    await sara.log_in()
    assert (await omar.log_in(await a_key(system, "other", "moderation")))[0] == 403
    assert (await omar.look(looking=pledge))[0] == 403
    async with omar._session.get(f"{system.url}/console") as reply:
        omar.csrf = hidden_in(await reply.text())["csrf"]
    assert (await omar.decide(pledge, "approve"))[0] == 403
    assert (await omar.history(pledge))[0] == 403
    _, seen = await sara.look()
    assert (seen["desks"], seen["decisions"]) == ([], [])


async def test_message_of_another_drive_is_not_found_at_this_address(
    system: WholeSystem, moderators: list[Moderator]
) -> None:
    sara = moderators[0]
    await sara.log_in()
    await api(system, "POST", "/v1/drives", a_drive("summer"))
    await api(system, "POST", "/v1/drives/summer/open", {})
    body = {"amount": {"currency": "USD", "value": "25.00"}, "message": "evil.com"}
    _, made = await api(system, "POST", "/v1/drives/summer/pledges", body)
    assert (await sara.decide(made["id"], "approve"))[0] == 404
    assert (await sara.history(made["id"]))[0] == 404
    _, history = await api(system, "GET", f"/v1/messages/{made['id']}/history")
    assert [one["to"] for one in history["data"]] == ["held"]
    _, seen = await sara.look()
    assert seen["decisions"] == []


async def test_session_that_ended_or_was_revoked_stops_an_open_desk(
    system: WholeSystem, moderators: list[Moderator], tmp_path: Path
) -> None:
    pledge = await a_message(system)
    sara, omar = moderators
    request = {"kind": "secret", "partner": "default", "scopes": ["moderation"]}
    _, key = await api(system, "POST", "/v1/keys", request)
    await sara.log_in(key["key"])
    await omar.log_in()
    assert (await sara.look())[0] == (await omar.look())[0] == 200
    path = f"{system.url}/v1/keys/{key['id']}"
    assert (await system.session.delete(path, headers=bearer(ADMIN))).status == 204

    async def is_refused() -> bool:
        return (await sara.look())[0] == 401

    await until(is_refused)
    assert (await sara.decide(pledge, "approve"))[0] == 401
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as rows, rows:
        rows.execute("UPDATE sessions SET expires_at = 1")
    assert (await omar.look())[0] == (await omar.decide(pledge, "approve"))[0] == 401
    _, history = await api(system, "GET", f"/v1/messages/{pledge}/history")
    assert [one["version"] for one in history["data"]] == [0]


async def test_desk_decides_while_its_database_cannot_be_written(
    system: WholeSystem, moderators: list[Moderator], tmp_path: Path
) -> None:
    pledge = await a_message(system)
    sara = moderators[0]
    await sara.log_in()
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        status, seen = await sara.look()
        assert (status, seen["desks"]) == (200, None)
        assert (await sara.decide(pledge, "approve", {"seen_version": 0}))[0] == 200
        _, seen = await sara.look()
        assert [one["state"] for one in seen["decisions"]] == ["approved"]


async def test_bad_requests_are_refused(system: WholeSystem, moderators: list[Moderator]) -> None:
    pledge = await a_message(system)
    sara = moderators[0]
    await sara.log_in()
    assert (await sara.look("gone"))[0] == 404
    assert (await sara.decide(pledge, "delete"))[0] == 404
    assert (await sara.decide("plg_nothing", "hide"))[0] == 404
    assert (await sara.decide(pledge, "hide", {"seen_version": "x"}))[0] == 422
    assert (await sara.look(desk="../../x", looking="<", name="\u202e" * 500))[0] == 200


def test_both_languages_have_the_same_texts_and_placeholders() -> None:
    def holes(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, arabic = TRANSLATIONS["en"], TRANSLATIONS["ar"]
    assert english.keys() == arabic.keys()
    assert {key: holes(text) for key, text in english.items()} == {
        key: holes(text) for key, text in arabic.items()
    }
