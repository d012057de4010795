"""Attempts to take over a session of the console, or to act with one from another page, over HTTP."""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp
import pytest

from tests.gateway.console_harness import Browser, hidden_in
from tests.gateway.harness import ADMIN, DRIVE, Harness, drive

PAGE: Final = f"/console/drives/{DRIVE}"
FORMS: Final = (
    "/console/new", f"{PAGE}/edit", f"{PAGE}/state", f"{PAGE}/creators", f"{PAGE}/refunds",
    "/console/keys", "/console/keys/revoke", "/console/webhooks/retry", "/session/end",
)  # fmt: skip
PAGES: Final = ("/console", "/console/new", PAGE, f"{PAGE}/edit", "/console/keys", "/console/nothing")
EVIL: Final = "https://evil.example"
CLOSE: Final = {"action": "close"}


@pytest.fixture
async def victim(harness: Harness) -> Browser:
    """Who is logged in as an admin."""
    answers = harness.pledges.answers
    answers[f"GET /v1/drives/{DRIVE}"] = (200, {**drive(), "partner": "default"})
    answers["GET /v1/drives?"] = answers["GET /v1/drives"] = (200, {"data": [], "next": None})
    answers[f"GET /v1/drives/{DRIVE}/creators"] = (200, {"data": [], "next": None})
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def changes(harness: Harness) -> list[str]:
    """What reached a service besides reads."""
    services = (harness.pledges, harness.payments)
    lines = [line for service in services for line in service.lines()]
    return [line for line in lines if not line.startswith("GET ") and "/internal/" not in line]


async def token_of(browser: Browser) -> str:
    status, html = await browser.get("/console/new")
    assert status == 200
    return hidden_in(html)["csrf"]


async def request(
    harness: Harness, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with harness.session.request(
        method, path, data=body, headers=named, allow_redirects=False
    ) as reply:
        return reply.status, reply.headers


@pytest.mark.parametrize("path", FORMS)
async def test_post_of_another_site_is_refused_even_with_cookie_and_token(
    harness: Harness, victim: Browser, path: str
) -> None:
    fields = {**CLOSE, "csrf": await token_of(victim)}
    senders: list[dict[str, str]] = [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": harness.url, "Sec-Fetch-Site": "cross-site"},
        {"Origin": harness.url, "Sec-Fetch-Site": "same-site"},
        {"Origin": harness.url, "Sec-Fetch-Site": "none"},
        {"Origin": f"{harness.url}.evil.example"},
        {"Origin": f"https://user@{harness.url.partition('//')[2]}"},
        {"Sec-Fetch-Site": "cross-site"},
        {},
    ]
    for sender in senders:
        status, _ = await request(harness, "POST", path, fields, Cookie=victim.cookie, **sender)
        assert status == 403, sender
    assert changes(harness) == []
    assert (await victim.get("/console"))[0] == 200


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("POST", "text/plain"),
        ("POST", "application/json"),
        ("POST", "multipart/form-data; boundary=x"),
        ("POST", ""),
        ("PUT", "application/x-www-form-urlencoded"),
        ("PATCH", "application/x-www-form-urlencoded"),
        ("DELETE", "application/x-www-form-urlencoded"),
    ],
)
async def test_no_other_verb_or_content_type_changes_anything(
    harness: Harness, victim: Browser, path: str, method: str, kind: str
) -> None:
    token = await token_of(victim)
    body = json.dumps({**CLOSE, "csrf": token}) if "json" in kind else f"action=close&csrf={token}"
    status, headers = await request(
        harness, method, path, body, Cookie=victim.cookie, Origin=harness.url, Content_Type=kind
    )
    assert status == (415 if method == "POST" else 405)
    assert "Access-Control-Allow-Origin" not in headers
    assert changes(harness) == []


@pytest.mark.parametrize("path", [path for path in FORMS if path not in ("/console/new", "/console/keys")])
async def test_link_to_a_form_changes_nothing(harness: Harness, victim: Browser, path: str) -> None:
    query = f"?action=close&csrf={await token_of(victim)}"
    status, _ = await request(harness, "GET", path + query, Cookie=victim.cookie)
    assert status == (200 if path.endswith("/edit") else 405)
    assert changes(harness) == []


@pytest.mark.parametrize("path", FORMS)
async def test_token_of_another_session_is_refused(harness: Harness, victim: Browser, path: str) -> None:
    attacker = Browser(harness.session, harness.url)
    await attacker.log_in(await harness.key(kind="secret", partner="abo", scopes=["drives"]))
    for token in (await token_of(attacker), "", "0" * 64):
        assert (await victim.post(path, {**CLOSE, "csrf": token}))[0] == 403
    assert changes(harness) == []


async def test_preflight_of_another_site_allows_nothing(harness: Harness, victim: Browser) -> None:
    for path in FORMS:
        _, headers = await request(
            harness, "OPTIONS", path, Origin=EVIL, Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="content-type",
        )  # fmt: skip
        assert not [name for name in headers if name.lower().startswith("access-control")], path


async def test_pages_of_the_console_are_neither_framed_nor_kept_nor_read_elsewhere(
    harness: Harness, victim: Browser
) -> None:
    for path in PAGES:
        for cookie in (victim.cookie, ""):
            _, headers = await request(harness, "GET", path, Cookie=cookie, Origin=EVIL)
            policy = headers.get("Content-Security-Policy", "")
            if headers["Content-Type"].startswith("text/html"):
                assert "frame-ancestors 'none'" in policy, path
                assert "form-action 'self'" in policy, path
                assert "base-uri 'none'" in policy, path
                assert headers["Cache-Control"] == "private, no-store", path
                assert headers["Referrer-Policy"] == "same-origin", path
            assert "Access-Control-Allow-Origin" not in headers, path


async def test_cookie_that_was_logged_out_is_worth_nothing(harness: Harness, victim: Browser) -> None:
    stolen, token = victim.cookie, await token_of(victim)
    assert (await victim.post("/session/end", {"csrf": token, "to": "/console"}))[0] == 303
    thief = Browser(harness.session, harness.url, stolen)
    assert (await thief.get("/console/keys"))[0] == 401
    assert (await thief.post(f"{PAGE}/state", {**CLOSE, "csrf": token}))[0] == 401
    assert changes(harness) == []


async def test_planted_cookie_is_not_the_session_of_who_logs_in(harness: Harness, victim: Browser) -> None:
    """Fixation: the attacker has a session of its own key, and plants its cookie before the login."""
    attacker = Browser(harness.session, harness.url)
    await attacker.log_in(await harness.key(kind="secret", partner="abo", scopes=["drives"]))
    form = {"key": ADMIN, "to": "/console"}
    _, headers = await request(harness, "POST", "/session", form, Origin=harness.url, Cookie=attacker.cookie)
    assert headers["Set-Cookie"].partition(";")[0] != attacker.cookie
    assert (await attacker.get("/console"))[0] == 401
    made_up = "ataa-session=" + "A" * 43
    _, headers = await request(harness, "POST", "/session", form, Origin=harness.url, Cookie=made_up)
    assert headers["Set-Cookie"].partition(";")[0] != made_up
    assert (await Browser(harness.session, harness.url, made_up).get("/console"))[0] == 401


async def test_login_of_another_site_is_refused(harness: Harness) -> None:
    """Login CSRF: whoever is logged in as the attacker would type into the attacker's console."""
    for origin in (EVIL, "null", ""):
        status, headers = await request(
            harness, "POST", "/session", {"key": ADMIN, "to": "/console"}, Origin=origin
        )
        assert (status, "Set-Cookie" in headers) == (403, False)


async def test_cookies_do_not_open_the_api(harness: Harness, victim: Browser) -> None:
    for method, path in (("GET", "/v1/keys"), ("POST", f"/v1/drives/{DRIVE}/close"), ("POST", "/v1/keys")):
        status, _ = await request(
            harness, method, path, "{}", Cookie=victim.cookie, Content_Type="application/json"
        )
        assert status == 401, path
    assert changes(harness) == []


async def test_two_cookies_of_one_name_do_not_confuse_the_session(harness: Harness, victim: Browser) -> None:
    planted = "ataa-session=" + "B" * 43
    async with aiohttp.ClientSession(harness.url) as session:
        for cookie in (f"{planted}; {victim.cookie}", f"{victim.cookie}; {planted}"):
            status, html = await Browser(session, harness.url, cookie).get("/console/keys")
            assert (status, "sk_live_" in html) in ((200, False), (401, False))
