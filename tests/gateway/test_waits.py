from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backbone import ids
from gateway.proxy.waits import pledge_view, preferred_wait_s
from tests.gateway.harness import ADMIN, PLEDGE, Harness, bearer, pledge
from tests.waiting import PATIENCE_S, until

CHECKOUT = {
    "url": "https://pay.example/1",
    "client_secret": None,
    "publishable_key": None,
    "expires_at": None,
}
PLEDGES = "/v1/drives/winter/pledges"
ROOT = {**bearer(ADMIN), "Idempotency-Key": "k1"}
BY_TOKEN = f"/v1/pledges/{PLEDGE}?token=token-of-{PLEDGE}"


def checkout(harness: Harness, pledge_id: str = PLEDGE, status: str | None = None, **more: Any) -> None:
    """Let payments know a pledge."""
    harness.checkouts[pledge_id] = {"status": status, "checkout": None, "queue": None, "version": 1} | more


def lookups(harness: Harness) -> list[list[str]]:
    """The ids that payments was asked about, request by request."""
    return [json.loads(h.body)["ids"] for h in harness.payments.received if h.path == "/internal/checkouts"]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("wait=10; foo", 10),
        ('Wait = "7"', 7),
        ("wait=999", 30),
        ("wait=-1", 0),
        ("wait=1e9", 0),
        ("nowait=5", 0),
        ("wait=", 0),
    ],
)
def test_prefer_wait_is_read_as_rfc_7240_writes_it(prefer: str | None, seconds: float) -> None:
    assert preferred_wait_s(prefer) == seconds


@pytest.mark.parametrize(
    ("pledged", "paid", "shown"),
    [("open", None, "open"), ("cancelled", None, "cancelled"), ("open", "paid", "paid"),
     ("lapsed", "paid", "paid"), ("paid", "refunded", "refunded"), ("cancelled", "lapsed", "cancelled"),
     ("cancelled", "paid", "paid")],
)  # fmt: skip
def test_status_of_payments_takes_precedence(pledged: str, paid: str | None, shown: str) -> None:
    assert pledge_view(pledge(status=pledged), {"status": paid})["status"] == shown


def test_a_composed_pledge_has_exactly_the_public_fields() -> None:
    fields = ["id", "drive", "creator", "amount", "status", "checkout", "queue", "token", "created_at"]
    assert list(pledge_view(pledge(), None)) == fields


async def test_post_without_prefer_returns_immediately_without_a_checkout(harness: Harness) -> None:
    checkout(harness, checkout=CHECKOUT)
    status, headers, made = await harness.post(PLEDGES, {}, **ROOT)
    assert (status, made["checkout"], made["queue"], made["status"]) == (201, None, None, "open")
    assert "Preference-Applied" not in headers


async def test_post_with_prefer_wait_is_held_until_the_checkout_exists(harness: Harness) -> None:
    held = asyncio.create_task(harness.post(PLEDGES, {}, **ROOT, Prefer="wait=5"))
    await until(lambda: len(lookups(harness)) >= 2)
    assert not held.done()
    checkout(harness, checkout=CHECKOUT)
    status, headers, made = await asyncio.wait_for(held, PATIENCE_S)
    assert (status, made["checkout"]) == (201, CHECKOUT)
    assert headers["Preference-Applied"] == "wait=5"
    assert made["token"] == f"token-of-{PLEDGE}"


async def test_wait_that_times_out_returns_the_queue_position(harness: Harness) -> None:
    checkout(harness, queue={"position": 7, "eta_seconds": 2})
    status, _, made = await harness.post(PLEDGES, {}, **ROOT, Prefer="wait=1")
    assert (status, made["checkout"], made["queue"]) == (201, None, {"position": 7, "eta_seconds": 2})


async def test_replay_includes_the_current_checkout(harness: Harness) -> None:
    checkout(harness, checkout=CHECKOUT)
    harness.pledges.headers = {"Idempotency-Replayed": "true"}
    status, headers, made = await harness.post(PLEDGES, {}, **ROOT)
    assert (status, headers["Idempotency-Replayed"], made["checkout"]) == (201, "true", CHECKOUT)


async def test_pledge_is_answered_while_payments_is_unavailable(harness: Harness) -> None:
    harness.payments.answers["POST /internal/checkouts"] = (500, {})
    harness.pledges.headers = {"Idempotency-Replayed": "true"}
    assert (await harness.post(PLEDGES, {}, **ROOT))[0] == 201
    harness.pledges.headers = {}
    assert (await harness.post(PLEDGES, {}, **ROOT, Prefer="wait=1"))[0] == 201
    assert (await harness.get(BY_TOKEN))[0] == 503


async def test_waiting_requests_share_one_lookup(harness: Harness) -> None:
    pledge_ids = [ids.new("plg") for _ in range(100)]
    for pledge_id in pledge_ids:
        harness.entries[pledge_id] = {"pledge": pledge(pledge_id), "partner": "default"}
    waiting = [
        asyncio.create_task(harness.get(f"/v1/pledges/{one}", **bearer(ADMIN), Prefer="wait=10"))
        for one in pledge_ids
    ]
    await until(lambda: any(set(asked) == set(pledge_ids) for asked in lookups(harness)))
    for pledge_id in pledge_ids:
        checkout(harness, pledge_id, status="paid")
    answers = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    assert {answer["status"] for _, _, answer in answers} == {"paid"}


@pytest.mark.parametrize("change", ["checkout", "status", "pledge"])
async def test_read_with_prefer_wait_is_held_until_status_or_checkout_changes(
    harness: Harness, change: str
) -> None:
    checkout(harness, queue={"position": 3, "eta_seconds": 1})
    held = asyncio.create_task(harness.get(BY_TOKEN, Prefer="wait=10"))
    await until(lambda: len(lookups(harness)) >= 3)
    checkout(harness, queue={"position": 2, "eta_seconds": 1})
    asked = len(lookups(harness))
    await until(lambda: len(lookups(harness)) >= asked + 2)
    assert not held.done()
    if change == "pledge":
        harness.entries[PLEDGE] = {"pledge": pledge(status="cancelled"), "partner": "default"}
    elif change == "status":
        checkout(harness, status="paid", checkout=None)
    else:
        checkout(harness, checkout=CHECKOUT)
    status, headers, shown = await asyncio.wait_for(held, PATIENCE_S)
    assert (status, headers["Preference-Applied"]) == (200, "wait=10")
    assert (shown["status"], shown["checkout"]) == {
        "pledge": ("cancelled", None), "status": ("paid", None), "checkout": ("open", CHECKOUT)
    }[change]  # fmt: skip


async def test_lookups_stop_when_the_waiting_client_disconnects(harness: Harness) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.port)
    writer.write(f"GET {BY_TOKEN} HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n".encode())
    await until(lambda: len(lookups(harness)) >= 3)
    writer.close()
    await writer.wait_closed()
    del reader
    proxy = next(route.handler.__self__ for route in harness.service.app._router.routes  # type: ignore[attr-defined]
                 if route.pattern == "/v1/pledges/{id}")  # fmt: skip
    await until(lambda: not proxy._waits._waiting)
    await until(lambda: proxy._waits._task is None)


async def test_drain_ends_all_waits(harness: Harness) -> None:
    held = asyncio.create_task(harness.get(BY_TOKEN, Prefer="wait=30"))
    await until(lambda: len(lookups(harness)) >= 2)
    harness.service.drain.set()
    assert (await asyncio.wait_for(held, PATIENCE_S))[0] == 200


async def test_pledge_is_readable_by_token_or_partner_key_and_404_otherwise(
    harness: Harness,
) -> None:
    mine = await harness.key(kind="secret", scopes=["refunds"])
    theirs = await harness.key(kind="secret", partner="other")
    path = f"/v1/pledges/{PLEDGE}"
    assert (await harness.get(BY_TOKEN))[0] == 200
    assert (await harness.get(path, **bearer(mine)))[2]["token"] == f"token-of-{PLEDGE}"
    for wrong, headers in (
        (f"{path}?token=", {}),
        (f"{path}?token=wrong", {}),
        (f"{path}?token=%00%ff", {}),
        (f"{path}?token=wrong", bearer(mine)),
        (path, bearer(theirs)),
        ("/v1/pledges/plg_01frtz5n00000000000000000d?token=x", {}),
        ("/v1/pledges/nothing", bearer(mine)),
    ):
        status, _, problem = await harness.get(wrong, **headers)
        assert (status, problem["type"]) == (404, "/problems/not-found"), wrong
    assert (await harness.get(path))[0] == 401
    assert (await harness.get(BY_TOKEN, **bearer("sk_live_unknown")))[0] == 401


async def test_test_key_reads_pledges_of_test_drives_only(harness: Harness) -> None:
    key = await harness.key(kind="secret", mode="test")
    assert (await harness.get(f"/v1/pledges/{PLEDGE}", **bearer(key)))[0] == 403
    harness.entries[PLEDGE] = {"pledge": pledge(), "partner": "default", "test": True}
    assert (await harness.get(f"/v1/pledges/{PLEDGE}", **bearer(key)))[0] == 200


async def test_response_to_a_publishable_key_omits_the_token(harness: Harness) -> None:
    key = await harness.key(kind="publishable", origins=["https://give.example"])
    here = {**bearer(key), "Origin": "https://give.example"}
    status, headers, shown = await harness.get(f"/v1/pledges/{PLEDGE}", **here)
    assert (status, shown["token"]) == (200, None)
    assert headers["Cache-Control"] == "private, no-store"
    assert (await harness.get(f"/v1/pledges/{PLEDGE}", **bearer(key)))[2][
        "type"
    ] == "/problems/origin-not-allowed"
