"""Forms of the console whose change no service confirms: nothing filled in is lost, nothing made twice."""

from __future__ import annotations

import re
from html import unescape
from typing import Any, Final

import pytest

from gateway.access.sessions import Sessions
from gateway.console.texts import CONSOLE_EN
from tests.gateway.console_harness import Browser, hidden_in
from tests.gateway.harness import ADMIN, DRIVE, FakeService, Harness, drive

DOWN: Final = (503, {"type": "/problems/overloaded", "status": 503})
PAGE: Final = f"/console/drives/{DRIVE}"
TYPED: Final = """Ali's "tents" & <b>stoves</b>"""
NOT_SAVED: Final = str(CONSOLE_EN["refused_not_saved"])


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    shown = {**drive(), "partner": "default", "milestones": []}
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, shown)
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}/creators"] = (200, {"data": [], "next": None})
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def fields_in(html: str) -> list[tuple[str, str]]:
    """Name and value of each input of the page's last form."""
    form = html[html.rindex('<form method="post"') :]
    found = re.findall(r'<input[^>]*name="(\w+)"[^>]* value="([^"]*)"', form)
    return [(name, unescape(value)) for name, value in found]


def keys_of(service: FakeService, line: str) -> list[str | None]:
    """The Idempotency-Key of each request to a method and path."""
    return [
        one.headers.get("idempotency-key") for one in service.received if f"{one.method} {one.path}" == line
    ]


@pytest.mark.parametrize(
    ("path", "line", "typed"),
    [
        ("/console/new", "POST /v1/drives", {"slug": "s", "title_en": TYPED, "milestone_en": TYPED}),
        (f"{PAGE}/edit", f"PATCH /v1/drives/{DRIVE}", {"slug": "s", "title_en": TYPED, "goal": "5"}),
        (f"{PAGE}/creators", f"POST /v1/drives/{DRIVE}/creators", {"slug": "s", "name": TYPED, "team": "T"}),
        (f"{PAGE}/state", f"POST /v1/drives/{DRIVE}/pause", {"action": "pause"}),
    ],
)  # fmt: skip
async def test_form_is_shown_again_as_it_was_filled_in_and_sent_again_with_its_key(
    harness: Harness, admin: Browser, path: str, line: str, typed: dict[str, str]
) -> None:
    answers = harness.pledges.answers
    answers[line] = DOWN
    hidden = {"once": "f" * 32, **hidden_in((await admin.get("/console/new"))[1]), "currency": "USD"}
    status, _, html = await admin.post(path, {**hidden, **typed})
    assert (status, NOT_SAVED in unescape(html)) == (503, True)
    kept = fields_in(html)
    assert set(kept) >= set(typed.items())
    assert "<b>stoves</b>" not in html
    answers[line] = (201, {"id": "crt_1", **drive()})
    status, location, html = await admin.post(path, kept)
    assert (status, "done=" in location) == (303, True), html
    first, second = keys_of(harness.pledges, line)
    assert first == second
    if line.startswith("POST") and not line.endswith("/pause"):
        assert first == f"console-{hidden['once']}"


@pytest.mark.parametrize("path", [f"{PAGE}/edit", f"{PAGE}/creators", f"{PAGE}/state", f"{PAGE}/refunds"])
async def test_form_is_kept_while_its_drive_cannot_even_be_read(
    harness: Harness, admin: Browser, path: str
) -> None:
    typed = {
        "name": TYPED,
        "title_ar": "خيام",
        "slug": "s",
        "action": "pause",
        "why": TYPED,
        "currency": "USD",
    }
    hidden = hidden_in((await admin.get("/console/new"))[1])
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = DOWN
    status, _, html = await admin.post(path, {**hidden, **typed})
    assert (status, NOT_SAVED in unescape(html)) == (503, True)
    assert f'action="{path}"' in html
    kept = dict(fields_in(html))
    assert kept["once"] == hidden["once"]
    assert TYPED in kept.values() or kept["title_ar"] == typed["title_ar"]


async def test_form_is_kept_while_the_gateways_own_database_is_unavailable(
    harness: Harness, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backbone.http.problems import Overloaded

    async def unavailable(sessions: Sessions, request: Any) -> Any:
        raise Overloaded("connection refused", retry_after_s=2)

    hidden = hidden_in((await admin.get("/console/new"))[1])
    monkeypatch.setattr(Sessions, "find", unavailable)
    status, _, html = await admin.post(f"{PAGE}/creators", {**hidden, "name": TYPED})
    kept = dict(fields_in(html))
    assert (status, kept["name"], kept["csrf"]) == (503, TYPED, hidden["csrf"])
    status, html = await admin.get("/console")
    assert (status, html.startswith("<!doctype html>")) == (503, True)


async def test_refused_form_gets_a_new_key(harness: Harness, admin: Browser) -> None:
    harness.pledges.answers["POST /v1/drives"] = (409, {"type": "/problems/slug-taken"})
    hidden = hidden_in((await admin.get("/console/new"))[1])
    status, _, html = await admin.post("/console/new", {**hidden, "slug": "taken"})
    kept = dict(fields_in(html))
    assert (status, kept["slug"]) == (409, "taken")
    assert kept["once"] not in ("", hidden["once"])


async def test_key_form_keeps_its_key(
    harness: Harness, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backbone.http.service_client import ServiceUnavailable
    from gateway.console.client import ServiceCalls

    async def unavailable(*request: Any) -> Any:
        raise ServiceUnavailable("no answer in time")

    hidden = hidden_in((await admin.get("/console/keys"))[1])
    monkeypatch.setattr(ServiceCalls, "send", unavailable)
    typed = {"kind": "publishable", "name": "till", "origins": "https://a.example"}
    status, _, html = await admin.post("/console/keys", {**hidden, **typed})
    kept = dict(fields_in(html))
    assert (status, kept["once"], kept["name"], kept["origins"]) == (
        503, hidden["once"], "till", "https://a.example",
    )  # fmt: skip
