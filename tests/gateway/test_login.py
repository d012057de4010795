"""The login form, its cookie and its redirects, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.console.login import login_page
from gateway.console.translations import TRANSLATIONS
from tests.gateway.harness import ADMIN, Harness, gateway
from tests.gateway.test_sessions import request


async def log_in(harness: Harness, key: str = ADMIN, to: str = "/console", **headers: str) -> Any:
    headers = {"Origin": harness.url, **headers}
    form = {"key": key, "to": to}
    async with harness.session.post("/session", data=form, headers=headers, allow_redirects=False) as reply:
        return reply.status, reply.headers, await reply.text()


async def test_login_sets_the_cookie_and_returns_to_the_page(harness: Harness) -> None:
    status, headers, _ = await log_in(harness, to="/moderate/winter?lang=ar")
    assert (status, headers["Location"]) == (303, "/moderate/winter?lang=ar")
    assert headers["Set-Cookie"].startswith("ataa-session=")


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example", "//evil.example/console", "/console//evil.example", "/\\evil.example",
        "/docs", "/console\r\nSet-Cookie: a=b", "", "/console?" + "x" * 600, "/moderate/../docs",
    ],
)  # fmt: skip
async def test_login_redirects_to_its_own_pages_only(harness: Harness, to: str) -> None:
    status, headers, _ = await log_in(harness, to=to)
    assert (status, headers["Location"]) == (303, "/console")


@pytest.mark.parametrize(
    ("key", "origin", "status", "error"),
    [
        ("ak_admin_" + "x" * 30, None, 401, "error_wrong"),
        ("<script>alert(1)</script>", None, 401, "error_wrong"),
        (ADMIN, "https://evil.example", 403, "error_origin"),
    ],
)
async def test_refused_login_shows_the_form_with_its_reason(
    harness: Harness, key: str, origin: str | None, status: int, error: str
) -> None:
    answered, headers, html = await log_in(harness, key, Origin=origin or harness.url)
    assert answered == status
    assert str(TRANSLATIONS["login"]["en"][error]) in html
    assert key not in html
    assert "Set-Cookie" not in headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_key_without_the_scope_opens_no_page(harness: Harness) -> None:
    key = await harness.key(kind="secret", scopes=["pledges"])
    for to in ("/console", "/moderate/winter"):
        status, headers, html = await log_in(harness, key, to)
        assert (status, "Set-Cookie" in headers) == (403, False)
        assert str(TRANSLATIONS["login"]["en"]["error_forbidden"]) in html


async def test_wrong_keys_are_limited_by_address(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_proxies="127.0.0.1") as harness:
        away = {"X-Forwarded-For": "192.0.2.7"}
        answered = [(await log_in(harness, "x", **away))[0] for _ in range(11)]
        assert answered == [401] * 10 + [429]
        status, headers, html = await log_in(harness, "x", **away)
        assert (status, "Retry-After" in headers) == (429, True)
        assert str(TRANSLATIONS["login"]["en"]["error_slow"]) in html


async def test_behind_a_tls_proxy_the_cookie_is_secure(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_proxies="127.0.0.1") as harness:
        away = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        _, headers, _ = await log_in(harness, **away)
        assert headers["Set-Cookie"].startswith("__Host-ataa-session=")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "", 415),
        (b"key=%FF", "application/x-www-form-urlencoded", 422),
        (b"key=%00", "application/x-www-form-urlencoded", 422),
        ("key=é".encode(), "application/x-www-form-urlencoded", 422),
        (b"&".join([b"a=b"] * 501), "application/x-www-form-urlencoded", 422),
        (b"a" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"", "application/x-www-form-urlencoded; charset=utf-8", 401),
    ],
)
@pytest.mark.parametrize("path", ["/session", "/session/end"])
async def test_unreadable_form_is_refused(
    harness: Harness, path: str, body: bytes, kind: str, status: int
) -> None:
    headers = {"Origin": harness.url, "Content-Type": kind}
    async with harness.session.post(path, data=body, headers=headers, allow_redirects=False) as reply:
        assert reply.status == (303 if path == "/session/end" and status == 401 else status)


async def test_logout_needs_the_sessions_own_token(harness: Harness) -> None:
    _, headers, _ = await log_in(harness)
    cookie = headers["Set-Cookie"].partition(";")[0]
    async with harness.session.post(
        "/session/end", data={"csrf": "wrong"}, headers={"Origin": harness.url, "Cookie": cookie}
    ) as reply:
        assert (reply.status, (await reply.json())["type"]) == (403, "/problems/csrf-token-wrong")


def test_whoever_comes_from_another_site_is_offered_to_continue() -> None:
    elsewhere = login_page(request({"sec-fetch-site": "cross-site"}), "/console/keys").body.decode()
    assert '<a href="/console/keys">' in elsewhere
    assert '<a href="/console/keys">' not in login_page(request(), "/console/keys").body.decode()


def test_form_shows_the_page_and_its_scope_in_both_languages() -> None:
    page = login_page(request({"accept-language": "ar"}), "/moderate/winter?digits=arab").body.decode()
    assert 'dir="rtl"' in page
    assert str(TRANSLATIONS["login"]["ar"]["moderation"]) in page
    assert 'value="/moderate/winter?digits=arab"' in page
    assert "/moderate/winter?digits=arab&amp;lang=en" in page
    assert "moderation" in page
    assert "drives" in login_page(request(), "/console").body.decode()
