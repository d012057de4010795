"""Invalid requests get a problem document, store nothing and log no traceback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.journeys.embedded_system import (
    ADMIN_KEY,
    WEBHOOK_SECRET,
    Answer,
    EmbeddedSystem,
    new_idempotency_key,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = {"amount": {"currency": "USD", "value": "25.00"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drive(system: EmbeddedSystem) -> AsyncIterator[str]:
    """A live drive that no test of this module changes."""
    await system.open_drive("strict")
    yield "strict"
    assert "Traceback" not in system.log


def amount(value: Any, currency: Any = "USD") -> dict[str, Any]:
    return {"amount": {"currency": currency, "value": value}}


async def refused(
    system: EmbeddedSystem, answer: Answer, status: int, kind: str, before: dict[str, int]
) -> None:
    """Fail unless the answer is this problem, complete and without the input, and nothing was stored."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["type"] == f"/problems/{kind}", answer.body
    assert answer.body["status"] == status
    assert answer.body["title"]
    assert answer.body["request_id"] == answer.headers["X-Request-Id"]
    assert await system.rows_when_drained() == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (amount("25"), "invalid-request"),
        (amount("25.0"), "invalid-request"),
        (amount("25.000"), "invalid-request"),
        (amount("-25.00"), "invalid-request"),
        (amount("+25.00"), "invalid-request"),
        (amount("2.5e1"), "invalid-request"),
        (amount("٢٥.٠٠"), "invalid-request"),
        (amount("२५.००"), "invalid-request"),
        (amount("0.00"), "invalid-request"),
        (amount("0.49"), "amount-too-small"),
        (amount(" 25.00"), "invalid-request"),
        (amount(25.00), "invalid-request"),
        (amount(25), "invalid-request"),
        (amount(None), "invalid-request"),
        (amount("25.00", "EUR"), "currency-not-accepted"),
        (amount("25.00", "usd"), "invalid-request"),
        (amount("25.00", "XYZ"), "invalid-request"),
        (amount("1000000.00"), "amount-too-large"),
        (amount("9" * 40 + ".00"), "amount-too-large"),
        ({}, "invalid-request"),
        ({**GOOD, "creator": "nobody"}, "invalid-request"),
        ({**GOOD, "creater": "star"}, "invalid-request"),
        ({**GOOD, "message": "x" * 281}, "invalid-request"),
        ({**GOOD, "reference": "x" * 256}, "invalid-request"),
        ({**GOOD, "donor": {"email": "no address"}}, "invalid-request"),
        ({**GOOD, "return_url": "javascript:alert(1)"}, "invalid-request"),
        ({**GOOD, "checkout_mode": "carrier-pigeon"}, "invalid-request"),
        ({**GOOD, "message": "a\x00b"}, "invalid-request"),
        ({**GOOD, "donor": {"name": "a\x00b"}}, "invalid-request"),
        ([], "invalid-request"),
        ("25.00", "invalid-request"),
    ],
)
async def test_invalid_pledge_is_refused_and_stores_nothing(
    system: EmbeddedSystem, drive: str, body: Any, kind: str
) -> None:
    before = await system.rows_when_drained()
    answer = await system.admin("POST", f"/v1/drives/{drive}/pledges", body)
    await refused(system, answer, 422, kind, before)
    assert "Traceback" not in system.log


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "malformed-json"),
        (b"", 400, "malformed-json"),
        (b"\xff\xfe", 400, "malformed-json"),
        (b'{"amount": {"currency": "USD", "value": "25.00"}} trailing', 400, "malformed-json"),
        (json.dumps({**GOOD, "message": "\ud800"}).encode(), 422, "invalid-request"),
        (json.dumps({**GOOD, "message": "x" * 1_000_000}).encode(), 413, "body-too-large"),
        (b"[" * 60_000, 400, "malformed-json"),
    ],
)
async def test_malformed_or_oversized_json_is_refused(
    system: EmbeddedSystem, drive: str, body: bytes, status: int, kind: str
) -> None:
    before = await system.rows_when_drained()
    answer = await system.admin("POST", f"/v1/drives/{drive}/pledges", body)
    await refused(system, answer, status, kind, before)


async def test_unsupported_content_type_is_refused(system: EmbeddedSystem, drive: str) -> None:
    before = await system.rows_when_drained()
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await system.admin("POST", f"/v1/drives/{drive}/pledges", GOOD, Content_Type=kind)
        await refused(system, answer, 415, "unsupported-media-type", before)


async def test_idempotency_key_is_required_validated_and_bound_to_its_body(
    system: EmbeddedSystem, drive: str
) -> None:
    path, who = f"/v1/drives/{drive}/pledges", f"Bearer {ADMIN_KEY}"
    before = await system.rows_when_drained()
    missing = await system.request("POST", path, GOOD, Authorization=who)
    await refused(system, missing, 400, "idempotency-key-missing", before)
    for malformed in ("x" * 256, "two words", "ключ".encode().decode("latin-1")):
        answer = await system.request("POST", path, GOOD, Authorization=who, Idempotency_Key=malformed)
        await refused(system, answer, 400, "idempotency-key-malformed", before)
    key = new_idempotency_key()
    first = await system.admin("POST", path, GOOD, Idempotency_Key=key)
    again = await system.admin("POST", path, GOOD, Idempotency_Key=key)
    assert (first.status, again.status) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.body["id"] == first.body["id"]
    after = await system.rows_when_drained()
    other = await system.admin("POST", path, amount("26.00"), Idempotency_Key=key)
    await refused(system, other, 422, "idempotency-key-reused", after)


async def test_concurrent_requests_with_one_key_create_one_pledge(system: EmbeddedSystem, drive: str) -> None:
    key, path = new_idempotency_key(), f"/v1/drives/{drive}/pledges"
    answers = await asyncio.gather(
        *(system.admin("POST", path, GOOD, Idempotency_Key=key) for _ in range(30))
    )
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.body["id"] for answer in answers if answer.status == 201}) == 1


async def test_invalid_pledges_among_fifty_concurrent_ones_fail_alone(
    system: EmbeddedSystem, drive: str
) -> None:
    path = f"/v1/drives/{drive}/pledges"
    bad = {
        7: json.dumps({**GOOD, "message": "\ud800"}).encode(),
        23: {**GOOD, "message": "\x00"},
        41: amount("1"),
    }
    answers = await asyncio.gather(*(system.admin("POST", path, bad.get(n, GOOD)) for n in range(50)))
    assert [n for n, answer in enumerate(answers) if answer.status != 201] == [7, 23, 41]
    assert len({answer.body["id"] for answer in answers if answer.status == 201}) == 47


@pytest.mark.parametrize(
    "key", ["", "nonsense", "ak_admin_wrongwrongwrongwrong", "sk_live_unknown", "pk_live_x"]
)
async def test_missing_or_unknown_api_key_is_401(system: EmbeddedSystem, drive: str, key: str) -> None:
    before = await system.rows_when_drained()
    named = {"Authorization": f"Bearer {key}"} if key else {}
    answer = await system.request(
        "POST", f"/v1/drives/{drive}/pledges", GOOD, Idempotency_Key=new_idempotency_key(), **named
    )
    await refused(system, answer, 401, "unauthorized", before)


async def test_api_key_is_limited_to_its_scopes(system: EmbeddedSystem, drive: str) -> None:
    made = await system.admin("POST", "/v1/keys", {"kind": "secret", "scopes": ["drives"]})
    assert made.status == 201
    who = f"Bearer {made.body['key']}"
    before = await system.rows_when_drained()
    answer = await system.request(
        "POST", f"/v1/drives/{drive}/pledges", GOOD, Authorization=who, Idempotency_Key=new_idempotency_key()
    )
    await refused(system, answer, 403, "forbidden", before)
    keys = await system.request("POST", "/v1/keys", {"kind": "secret"}, Authorization=who)
    await refused(system, keys, 403, "forbidden", before)


async def test_publishable_key_pledges_only_from_its_origins_and_cannot_administer(
    system: EmbeddedSystem, drive: str
) -> None:
    body = {"kind": "publishable", "origins": ["https://stream.example"]}
    made = await system.admin("POST", "/v1/keys", body)
    who, path = f"Bearer {made.body['key']}", f"/v1/drives/{drive}/pledges"
    before = await system.rows_when_drained()
    for origin in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "http://stream.example"},
        {"Origin": "null"},
    ):
        answer = await system.request(
            "POST", path, GOOD, Authorization=who, Idempotency_Key=new_idempotency_key(), **origin
        )
        await refused(system, answer, 403, "origin-not-allowed", before)
    home = {"Origin": "https://stream.example", "Authorization": who}
    close = await system.request("POST", f"/v1/drives/{drive}/close", **home)
    assert close.status == 403
    given = await system.request("POST", path, GOOD, Idempotency_Key=new_idempotency_key(), **home)
    assert given.status == 201


async def test_revoked_key_is_refused_immediately(system: EmbeddedSystem, drive: str) -> None:
    made = await system.admin("POST", "/v1/keys", {"kind": "secret", "scopes": ["pledges"]})
    who = f"Bearer {made.body['key']}"
    path = f"/v1/drives/{drive}/pledges"
    assert (
        await system.request("POST", path, GOOD, Authorization=who, Idempotency_Key=new_idempotency_key())
    ).status == 201
    assert (await system.admin("DELETE", f"/v1/keys/{made.body['id']}")).status in {200, 204}
    refused = await system.request(
        "POST", path, GOOD, Authorization=who, Idempotency_Key=new_idempotency_key()
    )
    assert refused.status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/drives/no-such-drive/pledges"),
        ("GET", "/v1/drives/no-such-drive"),
        ("POST", "/v1/drives/no-such-drive/open"),
        ("GET", "/v1/drives/no-such-drive/totals"),
        ("GET", "/v1/drives/no-such-drive/live"),
        ("GET", "/v1/drives/no-such-drive/events"),
        ("GET", "/v1/drives/no-such-drive/leaderboards/creators"),
        ("GET", "/v1/drives/no-such-drive/creators"),
        ("GET", "/v1/nothing-here"),
        ("GET", "/v1/pledges/plg_01frtz5n00000000000000000c"),
    ],
)
async def test_unknown_resource_is_404(system: EmbeddedSystem, drive: str, method: str, path: str) -> None:
    before = await system.rows_when_drained()
    answer = await system.admin(method, path, GOOD if method == "POST" else None)
    await refused(system, answer, 404, answer.body["type"].removeprefix("/problems/"), before)


async def test_drive_that_is_not_live_refuses_pledges_with_the_reason(system: EmbeddedSystem) -> None:
    body = {"slug": "states", "title": "States", "currency": "USD", "goal": GOOD["amount"]}
    await system.admin("POST", "/v1/drives", body)
    wanted = {
        "": "drive-closed",
        "open": None,
        "pause": "drive-paused",
        "resume": None,
        "close": "drive-closed",
    }
    for move, kind in wanted.items():
        if move:
            assert (await system.admin("POST", f"/v1/drives/states/{move}")).status == 200
        before = await system.rows_when_drained()
        answer = await system.admin("POST", "/v1/drives/states/pledges", GOOD)
        if kind is None:
            assert answer.status == 201
        else:
            await refused(system, answer, 409, kind, before)
    taken = await system.admin("POST", "/v1/drives", body)
    assert taken.status == 409


def signed(payload: bytes, at: float, secret: str = WEBHOOK_SECRET) -> str:
    mac = hmac.new(secret.encode(), f"{int(at)}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={int(at)},v1={mac}"


EVENT = {"id": "evt_forged", "object": "event", "type": "payment_intent.succeeded", "livemode": False,
         "created": 1, "data": {"object": {"id": "pi_x", "object": "payment_intent"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("shift_s", "secret", "header"),
    [
        (0, "whsec_forged", None),
        (-3600, WEBHOOK_SECRET, None),
        (3600, WEBHOOK_SECRET, None),
        (0, "", ""),
        (0, "", "t=1"),
    ],
)
async def test_webhook_with_bad_signature_or_timestamp_is_refused(
    system: EmbeddedSystem, drive: str, shift_s: int, secret: str, header: str | None
) -> None:
    before = await system.rows_when_drained()
    payload = json.dumps(EVENT).encode()
    signature = signed(payload, time.time() + shift_s, secret) if header is None else header
    answer = await system.request("POST", "/webhooks/stripe", payload, Stripe_Signature=signature)
    assert answer.status == 400
    assert answer.body["type"].startswith("/problems/")
    assert await system.rows_when_drained() == before


async def test_signed_webhook_of_an_unused_type_is_stored_once_and_acknowledged(
    system: EmbeddedSystem, drive: str
) -> None:
    event = {
        **EVENT,
        "id": "evt_meaningless",
        "type": "plan.created",
        "data": {"object": {"note": "a\x00b\ud800"}},
    }
    payload = json.dumps(event).encode()
    for _ in range(3):
        answer = await system.request(
            "POST", "/webhooks/stripe", payload, Stripe_Signature=signed(payload, time.time())
        )
        assert 200 <= answer.status < 300
    live = json.dumps({**EVENT, "id": "evt_live", "livemode": True}).encode()
    ignored = await system.request(
        "POST", "/webhooks/stripe", live, Stripe_Signature=signed(live, time.time())
    )
    assert ignored.status == 200  # of the other mode: Stripe disables an endpoint that refuses events
    await system.wait_until_books_agree()


async def test_client_cannot_forge_the_gateways_caller_header(system: EmbeddedSystem, drive: str) -> None:
    answer = await system.request(
        "POST",
        f"/v1/drives/{drive}/pledges",
        GOOD,
        Ataa_Caller="forged",
        Idempotency_Key=new_idempotency_key(),
    )
    assert answer.status == 401
    inside = await system.request("GET", "/internal/books")
    assert inside.status == 404
