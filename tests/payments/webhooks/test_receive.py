"""The webhook endpoint: every event signed by Stripe is stored, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backbone.clock import SystemClock
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.app import MIGRATIONS
from services.payments.tables import MESSAGING_TABLES, WEBHOOKS
from services.payments.webhooks.endpoint import with_webhooks
from services.payments.webhooks.receive import WebhookStore
from tests.payments.stripe_events import a_thin_event, an_event, intent_succeeded, signed

OLD, NEW = "whsec_old", "whsec_new"


class Post:
    """Sends webhooks to the endpoint and counts what is stored."""

    def __init__(self, database: Database, app: Any) -> None:
        self.database = database
        self.app = app

    async def send(self, body: bytes, headers: dict[str, str], method: str = "POST") -> ServiceResponse:
        return await InProcessServiceClient(self.app).request(
            method, "/webhooks/stripe", headers=headers, body=body
        )

    async def stored(self) -> int:
        async with self.database.reading() as session:
            return (await session.execute(select(func.count()).select_from(WEBHOOKS))).scalar_one()


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    database = Database(f"sqlite:///{tmp_path / 'payments.db'}", MESSAGING_TABLES, synchronous="OFF")
    await database.migrate(MIGRATIONS)
    store = WebhookStore(database, SystemClock())
    yield Post(database, with_webhooks(new_app("payments", "secret"), store, [OLD, NEW]))
    await database.close()


def a_body(**other: Any) -> bytes:
    return json.dumps(intent_succeeded("pi_1", 100, {}) | other).encode()


@pytest.mark.parametrize("secret", [OLD, NEW])
async def test_any_of_the_secrets_is_accepted(post: Post, secret: str) -> None:
    body = a_body()
    assert (await post.send(body, signed(body, secret))).status == 200
    assert await post.stored() == 1


async def test_a_repeated_webhook_is_accepted_and_stored_once(post: Post) -> None:
    body = a_body()
    assert [(await post.send(body, signed(body, NEW))).status for _ in range(3)] == [200] * 3
    assert await post.stored() == 1


async def test_an_event_of_a_type_that_is_not_read_is_stored(post: Post) -> None:
    body = json.dumps(an_event("customer.created", {"id": "cus_1"})).encode()
    assert (await post.send(body, signed(body, NEW))).status == 200
    assert await post.stored() == 1


async def test_a_forged_old_or_future_signature_is_a_400_and_nothing_is_stored(post: Post) -> None:
    body = a_body()
    bad = [
        {},
        {"stripe-signature": ""},
        {"stripe-signature": "t=1,v1=\xff"},
        {"stripe-signature": f"t={int(time.time())}"},
        {"stripe-signature": "t=99999999999999999999999,v1=00"},
        signed(body, "whsec_forged"),
        signed(body + b" ", NEW),
        signed(body, NEW, time.time() - 400),
        signed(body, NEW, time.time() + 400),
    ]
    for headers in bad:
        reply = await post.send(body, headers)
        assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
        assert reply.json()["type"] == "/problems/bad-webhook"
    assert await post.stored() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"event"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id":"evt_1","type":"x","created":"soon","livemode":false}',
        b'{"id":"evt_1","type":"x","created":false,"livemode":false}',
        b'{"id":"evt_1","type":"x","created":0.5,"livemode":false}',
        b'{"id":"evt_1\x00","type":"x","created":1,"livemode":false}',
    ],
)
async def test_a_signed_body_that_is_no_event_is_a_400(post: Post, body: bytes) -> None:
    assert (await post.send(body, signed(body, NEW))).status == 400
    assert await post.stored() == 0


@pytest.mark.parametrize(
    "event",
    [
        intent_succeeded("pi_1", 100, {}) | {"livemode": True},
        intent_succeeded("pi_1", 100, {}) | {"account": "acct_1Another"},
        intent_succeeded("pi_1", 100, {"order": "17"}),
        a_thin_event(),
        a_thin_event("v2.core.account.created", livemode=True),
    ],
    ids=["other mode", "other account", "foreign", "thin", "thin, other mode"],
)
async def test_an_event_that_is_not_for_us_is_acknowledged_and_stored_once(
    post: Post, event: dict[str, Any]
) -> None:
    body = json.dumps(event).encode()
    assert [(await post.send(body, signed(body, NEW))).status for _ in range(2)] == [200, 200]
    assert await post.stored() == 1


@pytest.mark.parametrize(
    "created", ["soon", "2026-11-26T14:12:43", "99999999999", "0001-01-01T00:00:00+23:59", None]
)
async def test_a_thin_event_without_creation_time_is_no_event(post: Post, created: Any) -> None:
    body = json.dumps(a_thin_event(created=created)).encode()
    assert (await post.send(body, signed(body, NEW))).status == 400
    assert await post.stored() == 0


async def test_nul_and_lone_surrogates_are_stored_escaped(post: Post) -> None:
    body = b'{"id":"evt_\\u0000\\ud800","type":"customer.created","created":1,"livemode":false}'
    assert (await post.send(body, signed(body, NEW))).status == 200
    async with post.database.reading() as session:
        row = (await session.execute(select(WEBHOOKS))).one()
    assert row.event_id == "evt_\\u0000\\ud800"
    assert row.body == body


async def test_more_than_a_mebibyte_is_a_413(post: Post) -> None:
    body = b" " * (1024 * 1024 + 1)
    assert (await post.send(body, signed(body, NEW))).status == 413


async def test_other_methods_are_a_405(post: Post) -> None:
    assert (await post.send(b"", {}, "GET")).status == 405
