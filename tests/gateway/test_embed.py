"""The form in a frame of a partner's page: who may show it, and whose pledge it makes."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from backbone.clock import FrozenClock
from backbone.http.caller import HOSTED_FORM
from gateway.reach.sources import PARAMETERS
from tests.gateway.harness import ADMIN, DRIVE, Harness, bearer, drive

PLEDGES = f"/v1/drives/{DRIVE}/pledges"
PLEDGE_REQUEST = {"amount": {"currency": "USD", "value": "25.00"}}
SHOP, CLUB = "https://shop.example", "http://localhost:3000"
PATHS = ("/embed/winter", "/embed/winter/thanks")


async def new_key(harness: Harness, **changes: Any) -> str:
    request = {"kind": "publishable", "partner": "club", "origins": [SHOP, CLUB], **changes}
    return await harness.key(**request)


async def framed(
    harness: Harness, key: str, origin: str = SHOP, path: str = PATHS[0], **query: str
) -> tuple[int, str, dict[str, Any]]:
    """Status, `frame-ancestors` and the page's data, where it has any."""
    address = f"{path}?{urlencode({'key': key, 'origin': origin, **query})}"
    async with harness.session.get(address) as reply:
        html = await reply.text()
        policy = reply.headers["Content-Security-Policy"]
    found = re.search(r'id="page">(.*?)</script>', html)
    ancestors = policy.partition("frame-ancestors ")[2]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    return reply.status, ancestors, json.loads(found[1]) if found else {}


@pytest.mark.parametrize("path", PATHS)
async def test_only_the_keys_origins_may_frame_the_form(harness: Harness, path: str) -> None:
    key = await new_key(harness)
    status, ancestors, page = await framed(harness, key, CLUB, path)
    assert (status, ancestors) == (200, f"{CLUB} {SHOP}")
    assert page["frame"] == {"origin": CLUB, "key": key}
    assert page["path"] == "/embed/winter"


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_that_is_not_valid_for_the_page_is_refused_and_never_framed(
    harness: Harness, path: str
) -> None:
    valid, test = await new_key(harness), await new_key(harness, mode="test")
    secret = await harness.key(kind="secret", partner="club", scopes=["pledges"])
    refused = [
        (valid, "https://evil.example"), (valid, f"{SHOP}:8443"), (valid, ""), (valid, "null"), (valid, "*"),
        (valid, f"{SHOP}; script-src *"), (secret, SHOP), (ADMIN, SHOP), ("", SHOP), ("pk_live_x", SHOP),
        ("é", SHOP), (test, SHOP),
    ]  # fmt: skip
    for key, origin in refused:
        assert (await framed(harness, key, origin, path))[:2] == (403, "'none'"), (key, origin)


async def test_a_revoked_key_is_refused(harness: Harness) -> None:
    async with harness.session.post(
        "/v1/keys", json={"kind": "publishable", "origins": [SHOP]}, headers=bearer(ADMIN)
    ) as reply:
        made = await reply.json()
    assert (await framed(harness, made["key"]))[0] == 200
    async with harness.session.delete(f"/v1/keys/{made['id']}", headers=bearer(ADMIN)) as reply:
        assert reply.status == 204
    assert (await framed(harness, made["key"]))[:2] == (403, "'none'")


async def test_a_test_key_shows_a_test_drive(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {"winter": drive() | {"test": True}}})
    assert (await framed(harness, await new_key(harness, mode="test")))[0] == 200


async def test_a_drive_that_leaves_the_partner_out_is_not_shown(harness: Harness) -> None:
    others = drive() | {"partner": "default", "partners": ["other"]}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {"winter": others}})
    assert (await framed(harness, await new_key(harness)))[0] == 403
    assert (await framed(harness, await new_key(harness, partner="other")))[0] == 200
    assert (await framed(harness, await new_key(harness, partner="default")))[0] == 200


async def test_the_hosted_form_is_not_framed_whatever_its_address_says(harness: Harness) -> None:
    status, ancestors, page = await framed(harness, await new_key(harness), path="/donate/winter")
    assert (status, ancestors, page["frame"]) == (200, "'none'", None)


async def send(harness: Harness, key: str, token: str, **headers: str) -> tuple[int, Any]:
    status, _, reply = await harness.post(
        PLEDGES,
        PLEDGE_REQUEST,
        **{**bearer(key), "Origin": harness.url, "Ataa-Form-Token": token, "Idempotency-Key": "k"} | headers,
    )
    return status, reply


async def test_the_pledge_is_made_with_the_keys_partner(harness: Harness) -> None:
    key = await new_key(harness)
    _, _, page = await framed(harness, key)
    assert (await send(harness, key, page["token"]))[0] == 201
    caller = harness.pledges.received[-1].caller
    assert (caller.partner, caller.publishable, HOSTED_FORM in caller.scopes) == ("club", True, False)


async def test_a_token_is_valid_with_its_own_key_and_from_the_forms_origin_only(harness: Harness) -> None:
    key, other = await new_key(harness), await new_key(harness)
    _, _, page = await framed(harness, key)
    _, _, hosted = await framed(harness, key, path="/donate/winter")
    refused = (403, "/problems/origin-not-allowed")
    for made in (
        await send(harness, other, page["token"]),
        await send(harness, key, hosted["token"]),
        await send(harness, key, page["token"], Origin="https://evil.example"),
        await send(harness, key, page["token"][:-1] + ("1" if page["token"].endswith("0") else "0")),
        await send(harness, key, ""),
    ):
        assert (made[0], made[1]["type"]) == refused
    # Without its key, the framed form's token is none of the hosted form's.
    status, _, problem = await harness.post(
        PLEDGES, PLEDGE_REQUEST,
        **{"Origin": harness.url, "Ataa-Form-Token": page["token"], "Idempotency-Key": "k"},
    )  # fmt: skip
    assert (status, problem["type"]) == (403, "/problems/form-expired")
    assert not [line for line in harness.pledges.lines() if line.endswith("/pledges")]


async def test_a_token_expires_with_its_page(frozen: Harness) -> None:
    key = await new_key(frozen)
    _, _, page = await framed(frozen, key)
    assert isinstance(frozen.clock, FrozenClock)
    frozen.clock.move(2 * 3600)
    assert (await send(frozen, key, page["token"]))[0] == 403


async def test_a_secret_key_is_not_restricted_by_a_token(harness: Harness) -> None:
    secret = await harness.key(kind="secret", partner="club", scopes=["pledges"])
    assert (await send(harness, secret, "nonsense"))[0] == 201
    assert (await send(harness, "pk_live_unknown", "nonsense"))[0] == 401


async def test_the_script_passes_on_every_parameter_that_names_a_source(harness: Harness) -> None:
    async with harness.session.get("/embed.js") as reply:
        named = re.search(r"SOURCE = /\^\((.*?)\)=", await reply.text())
    assert named is not None
    assert set(named[1].split("|")) == set(PARAMETERS)


async def test_the_script_is_small_and_cached_for_minutes(harness: Harness) -> None:
    async with harness.session.get("/embed.js") as reply:
        script = await reply.text()
        headers = reply.headers
    assert (headers["Content-Type"], headers["Cache-Control"]) == (
        "text/javascript; charset=utf-8",
        "public, max-age=300",
    )
    async with harness.session.get("/embed.js", headers={"If-None-Match": headers["ETag"]}) as reply:
        assert reply.status == 304
    assert len(script.encode()) < 8_000
    # ES5, for the web views of old in-app browsers.
    assert not re.search(
        r"=>|\b(let|const|class|async|await)\b|`|\?\.", re.sub(r"/\*.*?\*/|//.*", "", script, flags=re.S)
    )
