from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from backbone.clock import FrozenClock
from backbone.http.caller import HOSTED_FORM
from tests.gateway.harness import DRIVE, Harness, ReceivedRequest, bearer, drive, gateway

PLEDGES = f"/v1/drives/{DRIVE}/pledges"
PLEDGE_REQUEST = {"amount": {"currency": "USD", "value": "25.00"}}


async def page(harness: Harness, path: str) -> tuple[int, Any, str]:
    async with harness.session.get(path, allow_redirects=False) as reply:
        return reply.status, reply.headers, (await reply.read()).decode(errors="replace")


async def form_token(harness: Harness) -> str:
    _, _, html = await page(harness, "/donate/winter")
    found = re.search(r'"token":"([\w.-]+)"', html)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize(
    "path",
    [
        "/overlay/winter",
        "/overlay/winter/setup",
        "/donate/winter",
        "/donate/winter/thanks",
        f"/overlay/{DRIVE}",
    ],
)
async def test_pages_are_html_under_a_strict_policy(harness: Harness, path: str) -> None:
    status, headers, html = await page(harness, path)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Winter" in html
    assert headers["X-Request-Id"]


@pytest.mark.parametrize(
    "path",
    [
        "/overlay/winter",
        "/overlay/winter/setup",
        "/donate/winter",
        "/donate/winter/thanks",
        "/docs",
        "/events",
    ],
)
@pytest.mark.parametrize("query", ["", "?lang=ar&creator=%D9%86&x=//a/"])
async def test_trailing_slash_redirects_to_the_page(harness: Harness, path: str, query: str) -> None:
    address = URL(f"{harness.url}{path}/{query}", encoded=True)
    async with harness.session.get(address, allow_redirects=False) as reply:
        assert (reply.status, reply.headers["Location"]) == (308, path + query)
    async with harness.session.head(address, allow_redirects=True) as reply:
        assert reply.status == 200
    assert (await page(harness, f"{path}//"))[0] == 404


@pytest.mark.parametrize(
    "path", ["/v1/drives/winter/totals/", "/livez/", "/overlay/", "//evil.example/overlay/winter/"]
)
async def test_only_pages_accept_a_trailing_slash(harness: Harness, path: str) -> None:
    async with harness.session.get(URL(harness.url + path, encoded=True), allow_redirects=False) as reply:
        assert reply.status == 404


async def test_favicon_is_served(harness: Harness) -> None:
    async with harness.session.get("/favicon.ico") as reply:
        assert (reply.status, reply.content_type) == (200, "image/svg+xml")


async def test_pages_load_only_existing_assets(harness: Harness) -> None:
    for path in ("/overlay/winter", "/overlay/winter/setup", "/donate/winter"):
        _, _, html = await page(harness, path)
        found = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', html))
        assert found
        for asset in found:
            status, headers, _ = await page(harness, asset)
            assert (status, "immutable" in headers["Cache-Control"]) == (200, True), asset
    assert (await page(harness, "/assets/x/nothing.js"))[0] == 404


@pytest.mark.parametrize("path", ["/overlay/nowhere", "/donate/nowhere", "/donate/nowhere/thanks"])
async def test_page_of_an_unknown_drive_is_an_html_404(harness: Harness, path: str) -> None:
    status, headers, html = await page(harness, path)
    assert (status, headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such drive" in html


async def test_page_is_an_html_503_while_pledges_is_unavailable(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/drives"] = (500, {})
    status, headers, html = await page(harness, "/donate/spring")
    assert (status, headers["Retry-After"], headers["Refresh"]) == (503, "2", "5")
    assert "Back in a moment" in html


async def test_form_token_makes_a_pledge_from_the_own_origin(harness: Harness) -> None:
    token = await form_token(harness)
    status, _, made = await harness.post(
        PLEDGES, PLEDGE_REQUEST, Origin=harness.url, **{"Ataa-Form-Token": token, "Idempotency-Key": "k"}
    )
    assert status == 201
    assert made["id"].startswith("plg_")
    received = harness.pledges.received[-1]
    assert (received.caller.partner, received.caller.scopes, received.caller.publishable) == (
        "default",
        {"pledges", HOSTED_FORM},
        True,
    )
    assert "ataa-form-token" not in received.headers


@pytest.mark.parametrize(
    "origin", [None, "https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"]
)
async def test_form_token_is_refused_from_another_origin(harness: Harness, origin: str | None) -> None:
    headers = {"Ataa-Form-Token": await form_token(harness), "Idempotency-Key": "k"}
    headers |= {"Origin": origin} if origin else {}
    status, _, problem = await harness.post(PLEDGES, PLEDGE_REQUEST, **headers)
    assert (status, problem["type"]) == (403, "/problems/form-expired")


async def test_form_token_is_valid_for_pledges_to_its_drive_only(harness: Harness) -> None:
    headers = {"Ataa-Form-Token": await form_token(harness), "Idempotency-Key": "k", "Origin": harness.url}
    assert (await harness.post("/v1/drives/spring/pledges", PLEDGE_REQUEST, **headers))[0] == 403
    assert (await harness.post(f"/v1/drives/{DRIVE}/close", None, **headers))[0] == 401
    for forged in ("", "f1.9999999999." + "0" * 64, "x"):
        status, _, _ = await harness.post(PLEDGES, PLEDGE_REQUEST, **{**headers, "Ataa-Form-Token": forged})
        assert status == 403
    unknown = await harness.post(PLEDGES, PLEDGE_REQUEST, **headers, **bearer("pk_live_unknown"))
    assert unknown[0] == 401


async def test_form_token_expires_after_two_hours(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        headers = {
            "Ataa-Form-Token": await form_token(harness),
            "Idempotency-Key": "k",
            "Origin": harness.url,
        }
        clock.move(7199)
        assert (await harness.post(PLEDGES, PLEDGE_REQUEST, **headers))[0] == 201
        clock.move(2)
        assert (await harness.post(PLEDGES, PLEDGE_REQUEST, **headers))[0] == 403


async def test_behind_a_proxy_the_public_address_is_the_own_origin(tmp_path: Path) -> None:
    async with gateway(tmp_path, public_url="https://give.example.org/") as harness:
        headers = {"Ataa-Form-Token": await form_token(harness), "Idempotency-Key": "k"}
        assert (await harness.post(PLEDGES, PLEDGE_REQUEST, **headers, Origin="https://give.example.org"))[
            0
        ] == 201
        assert (await harness.post(PLEDGES, PLEDGE_REQUEST, **headers, Origin="http://give.example.org"))[
            0
        ] == 403


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/donate/Winter", "/donate/winter"),
        ("/donate/WINTER?creator=AboFlah&lang=ar", "/donate/winter?creator=AboFlah&lang=ar"),
        ("/donate/Winter/thanks?lang=ar", "/donate/winter/thanks?lang=ar"),
        ("/overlay/Winter?parts=bar", "/overlay/winter?parts=bar"),
        (f"/overlay/{DRIVE.upper()}", f"/overlay/{DRIVE}"),
    ],
)
async def test_upper_case_slug_is_redirected_to_lower_case(
    harness: Harness, path: str, canonical: str
) -> None:
    status, headers, _ = await page(harness, path)
    assert (status, headers["Location"]) == (308, canonical)
    assert (await page(harness, canonical))[0] == 200


def named(harness: Harness, *creators: dict[str, str]) -> None:
    """Let pledges know these creators, by id and slug, and no others."""

    def answer(received: ReceivedRequest) -> tuple[int, Any]:
        refs = json.loads(received.body)["refs"]
        by_ref = {f"{DRIVE}/{one[by]}": one for one in creators for by in ("id", "slug")}
        return 200, {"data": {ref: by_ref[ref] for ref in refs if ref in by_ref}}

    harness.pledges.answers["POST /internal/creators"] = answer


ABOFLAH = {"id": "crt_205", "slug": "aboflah", "name": "AboFlah"}


@pytest.mark.parametrize("asked", ["aboflah", "AboFlah", "ABOFLAH", "%20aboflah", "crt_205", "CRT_205"])
async def test_creator_of_a_link_is_credited_in_a_drive_with_many_creators(
    harness: Harness, asked: str
) -> None:
    first = [{"id": f"crt_{n:03}", "slug": f"c{n}", "name": f"C {n}"} for n in range(100)]
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}/creators"] = (200, {"data": first, "next": "crt_099"})
    named(harness, ABOFLAH)
    for _ in range(2):  # looked up, and from the cache
        _, _, html = await page(harness, f"/donate/winter?creator={asked}")
        assert '"creator":"crt_205"' in html
        assert "<bdi>AboFlah</bdi>" in html
    asked_for = [line for line in harness.pledges.lines() if "creators" in line]
    assert sorted(asked_for) == [f"GET /v1/drives/{DRIVE}/creators", "POST /internal/creators"]


@pytest.mark.parametrize("asked", ["gone", "%00", "x" * 300, "a/b", "%F0%9F%98%80", "%ED%A0%80"])
async def test_unknown_creator_is_reported_on_the_page(harness: Harness, asked: str) -> None:
    named(harness, ABOFLAH)
    status, _, html = await page(harness, f"/donate/winter?lang=en&creator={asked}")
    assert status == 200
    assert '"creator":null' in html
    assert "is not part of this drive" in html


async def test_creator_is_sent_unverified_while_it_cannot_be_looked_up(harness: Harness) -> None:
    """During a rolling update pledges may be of a version without this route."""
    harness.pledges.answers["POST /internal/creators"] = (404, {})
    status, _, html = await page(harness, "/donate/winter?creator=AboFlah")
    assert status == 200
    assert '"creator":"aboflah"' in html


async def test_creator_search_counts_against_the_address_limit(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "limit_address_per_s": 0.5, "limit_burst_s": 4.0}
    async with gateway(tmp_path, **settings) as harness:
        found = {"creators": [], "more": False}
        harness.pledges.answers["POST /internal/creator-search"] = (200, {"data": found})
        donor = {"X-Forwarded-For": "203.0.113.7"}
        searches = [(await harness.get("/donate/winter/creators?q=x", **donor))[0] for _ in range(3)]
    assert searches == [200, 200, 429]


async def test_the_form_finds_creators_by_a_part_of_their_name(harness: Harness) -> None:
    found = {"creators": [ABOFLAH], "more": False}
    harness.pledges.answers["POST /internal/creator-search"] = (200, {"data": found})
    status, _, answer = await harness.get("/donate/winter/creators?q=%D8%A3%D8%A8%D9%88%00")
    assert (status, answer) == (200, found)
    assert json.loads(harness.pledges.received[-1].body) == {"drive": DRIVE, "text": "أبو"}
    assert (await harness.get("/donate/nowhere/creators?q=x"))[0] == 404
    harness.pledges.answers["POST /internal/creator-search"] = (500, {})
    assert (await harness.get("/donate/winter/creators?q=x"))[0] == 503


async def test_overlay_does_not_request_creators(harness: Harness) -> None:
    await page(harness, "/overlay/winter")
    assert not [line for line in harness.pledges.lines() if "creators" in line]


async def test_docs_load_no_external_files(harness: Harness) -> None:
    status, headers, html = await page(harness, "/docs")
    assert status == 200
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "//" not in html.replace("<!doctype", "")
    for asset in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert (await page(harness, asset))[0] == 200, asset


def asked_for(harness: Harness, path: str) -> list[Any]:
    return [json.loads(one.body) for one in harness.pledges.received if one.path == path]


async def test_the_form_offers_the_currencies_for_which_pledges_has_a_rate(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/rates"] = (200, {"data": {"KWD/USD": "3.2581"}})
    assert "<option" not in (await page(harness, "/donate/winter"))[2]  # it takes no other
    assert not asked_for(harness, "/internal/rates")
    taking = {**drive(), "id": "drv_01frtz5n0000000000000000zz", "currencies": ["AED", "KWD"]}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {"many": taking}})
    harness.pledges.answers[f"GET /v1/drives/{taking['id']}/creators"] = (200, {"data": [], "next": None})
    html = (await page(harness, "/donate/many?currency=KWD&lang=en"))[2]
    assert re.findall('<option value="([A-Z]+)"', html) == ["USD", "KWD"]
    assert '"currency": "KWD"' in html or '"currency":"KWD"' in html
    await page(harness, "/donate/many")  # within two seconds
    assert asked_for(harness, "/internal/rates") == [{"pairs": ["AED/USD", "KWD/USD"]}]


async def test_the_form_has_the_drives_own_currency_where_rates_cannot_be_read(harness: Harness) -> None:
    taking = {**drive(), "currencies": ["KWD"]}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {"winter": taking}})
    for status in (404, 503):  # a pledges of an earlier version, and one that does not answer
        harness.pledges.answers["POST /internal/rates"] = (status, {})
        found, _, html = await page(harness, "/donate/winter?currency=KWD")
        assert (found, "<option" in html) == (200, False)
