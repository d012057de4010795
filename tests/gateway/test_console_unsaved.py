"""Forms of the console whose change no service confirms: nothing filled in is lost, nothing made twice."""

from __future__ import annotations

import re
from html import unescape
from typing import Any, Final

import pytest

from gateway.access.sessions import Sessions
from gateway.console.ledger_texts import LEDGER_AR, LEDGER_EN
from gateway.console.texts import CONSOLE_AR, CONSOLE_EN
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


PAYMENT: Final = "pay_01frtz5n00000000000000000d"
POOL: Final = "mpl_01frtz5n00000000000000000d"


@pytest.mark.parametrize(
    ("lang", "texts"), [("en", {**CONSOLE_EN, **LEDGER_EN}), ("ar", {**CONSOLE_AR, **LEDGER_AR})]
)
@pytest.mark.parametrize(
    ("page", "path", "field", "text"),
    [
        (f"{PAGE}/matching", f"{PAGE}/matching/end", "pool", "yes_end_pool"),
        ("/console/keys", "/console/keys/revoke", "key", "yes_revoke"),
        (f"{PAGE}/money", f"{PAGE}/money/refunds", "payment", "yes_refunds"),
    ],
)
async def test_form_of_one_button_says_after_the_login_what_it_does_and_to_what(
    harness: Harness, admin: Browser, lang: str, texts: Any, page: str, path: str, field: str, text: str
) -> None:
    money, made = {"currency": "USD", "value": "26.00"}, "2022-01-07T18:00:00Z"
    pool = {
        "id": POOL, "sponsor": "Acme", "state": "active", "cap": money, "used": money, "remaining": money,
        "ratio": "1.00", "per_gift_cap": None, "creator": None, "starts_at": made, "ends_at": None,
        "ended_at": None,
    }  # fmt: skip
    held = {
        "id": PAYMENT, "captured": money, "pledged": money, "held": {"reason": "other_amount", "since": made},
    }  # fmt: skip
    lines = (
        "gross",
        "offline",
        "matched",
        "refunds",
        "disputes",
        "raised",
        "held",
        "fees",
        "paid_out",
        "late",
    )
    statement = {"currency": "USD", "owed": [], **dict.fromkeys(lines)}
    harness.payments.answers |= {
        f"GET /v1/drives/{DRIVE}/statement": (200, {"currencies": [statement]}),
        f"GET /v1/drives/{DRIVE}/audit": DOWN,
        "GET /v1/payments": (200, {"data": [held], "next": None}),
        f"GET /v1/drives/{DRIVE}/matching-pools": (200, {"data": [pool], "next": None}),
    }
    if field == "key":
        new_key = {"kind": "publishable", "name": "till", "origins": "https://a.example"}
        assert (await admin.submit(page, page, new_key))[0] == 200
    shown = (await admin.get(f"{page}?lang={lang}"))[1]
    form = re.findall(rf'<form method="post" action="{path}.*?</form>', shown, re.DOTALL)[0]
    posted = fields_in(form)
    await expire(harness, admin)
    html = (await admin.post(f"{path}?lang={lang}", posted))[2]
    status, html = await logged_in_again(admin, html)
    assert (status, f'<p class="big">{texts[text]}</p>' in unescape(html)) == (200, True)
    assert f'<dd dir="auto">{dict(posted)[field]}</dd>' in html


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


async def logged_in_again(admin: Browser, html: str, key: str = ADMIN) -> tuple[int, str]:
    """Send the login form that a page carries, with its hidden fields; status and HTML."""
    status, _, shown = await admin.post("/session", [*fields_in(html), ("key", key)])
    return status, shown


async def expire(harness: Harness, admin: Browser) -> None:
    """End the browser's session without its knowledge."""
    await admin.submit("/console/new", "/session/end", {"to": "/console"})


async def test_form_that_is_sent_after_the_session_ended_comes_back_after_the_login(
    harness: Harness, admin: Browser
) -> None:
    harness.pledges.answers["POST /v1/drives"] = (201, {"id": "drv_1", **drive()})
    hidden = hidden_in((await admin.get("/console/new"))[1])
    await expire(harness, admin)
    typed = [("title_en", TYPED), ("milestone_en", "a"), ("milestone_en", TYPED), ("beneficiary", "")]
    sent = [*hidden.items(), ("currency", "USD"), *typed]
    status, _, html = await admin.post("/console/new?lang=en", sent)
    assert (status, "POST /v1/drives" in harness.pledges.lines()) == (401, False)
    assert "<b>stoves</b>" not in html
    status, html = await logged_in_again(admin, html, "sk_live_wrong")  # the form outlives a wrong key
    assert status == 401
    status, html = await logged_in_again(admin, html)
    assert (status, str(CONSOLE_EN["refused_session_ended"]) in unescape(html)) == (200, True)
    kept = fields_in(html)
    assert [one for one in kept if one[0] in ("title_en", "milestone_en", "beneficiary")] == typed
    assert dict(kept)["csrf"] != hidden["csrf"]
    await admin.log_in(ADMIN)
    kept = [one for one in kept if one[0] != "csrf"]
    csrf = hidden_in((await admin.get("/console/new"))[1])["csrf"]
    status, location, _ = await admin.post("/console/new", [*kept, ("csrf", csrf)])
    assert (status, "done=created" in location) == (303, True)
    assert keys_of(harness.pledges, "POST /v1/drives") == [f"console-{hidden['once']}"]


async def test_form_of_another_site_is_not_carried_through_the_login(
    harness: Harness, admin: Browser
) -> None:
    forged = {"action": "close", "name": TYPED}
    other = Browser(harness.session, "https://evil.example")
    status, _, html = await other.post(f"{PAGE}/state", forged)
    assert (status, "close" in html, "stoves" in html) == (401, False, False)
    form = [("kept_action", "close"), ("to", f"{PAGE}/state"), ("key", ADMIN)]
    status, _, html = await other.post("/session", form)
    assert (status, "close" in html) == (403, False)


async def test_form_too_large_for_the_login_is_not_carried_and_the_login_works(
    harness: Harness, admin: Browser
) -> None:
    await expire(harness, admin)
    status, _, html = await admin.post("/console/new", {"title_en": "a" * 61_000})
    assert (status, "aaaa" in html) == (401, False)
    status, location, _ = await admin.post("/session", [*fields_in(html), ("key", ADMIN)])
    assert (status, location) == (303, "/console")
