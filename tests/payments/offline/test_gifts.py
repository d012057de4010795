"""Offline gifts: counted once a second key approves them, and taken out again by two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backbone import ids
from backbone.clock import rfc3339
from backbone.contracts.payments import PaymentStatus
from services.payments.approvals.requests import MAX_UNITS
from services.payments.offline.tables import OFFLINE_GIFTS
from services.payments.recording.ledger import processor_balance
from services.payments.tables import POSTINGS
from tests.payments.approval_api import STAR, ApprovalApi, open_api
from tests.payments.harness import a_drive
from tests.payments.stripe_events import intent_succeeded, metadata

GIFTS = "/v1/drives/winter/offline-gifts"


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApprovalApi]:
    async with open_api(request.param, tmp_path) as api:
        yield api


def a_gift(api: ApprovalApi, value: str = "150.00", **other: Any) -> dict[str, Any]:
    received_at = rfc3339(api.books.clock.now() - timedelta(days=2))
    plain = {"amount": {"currency": "USD", "value": value}, "method": "bank", "evidence": "line 17"}
    return {**plain, "received_at": received_at, **other}


async def recorded(api: ApprovalApi, value: str = "150.00", **other: Any) -> str:
    reply = await api.ask("POST", GIFTS, a_gift(api, value, **other))
    assert (reply.status, reply.json()["status"]) == (201, "pending"), reply.body
    return str(reply.json()["id"])


async def decided(api: ApprovalApi, gift: str, action: str, key: str, body: Any = None) -> tuple[int, str]:
    """The status of the reply, and the gift's status or the problem's type."""
    reply = await api.ask("POST", f"/v1/offline-gifts/{gift}/{action}", body, key=key)
    found = reply.json()
    return reply.status, found["status"] if reply.status == 200 else found["type"]


async def test_an_approved_gift_counts_and_a_reversal_by_two_keys_takes_it_out(api: ApprovalApi) -> None:
    gift = await recorded(api, creator="star")
    assert (await api.announced(), await api.balances()) == ([], {})
    assert await decided(api, gift, "approve", "key_b") == (200, "approved")
    assert await api.balances() == {"offline_clearing": 15_000, "drive_raised": -15_000}
    (counted,) = await api.announced()
    assert (counted.offline, counted.status, counted.held) == (True, PaymentStatus.CAPTURED, False)
    assert (counted.captured.minor_units, counted.refunded.minor_units) == (15_000, 0)
    assert (counted.drive_id, counted.creator_id, counted.version) == (api.drive.drive_id, STAR, 1)
    assert counted.captured_at == api.books.clock.now() - timedelta(days=2)
    assert await decided(api, gift, "reverse", "key_b") == (200, "reversal_requested")
    assert len(await api.announced()) == 1
    assert await decided(api, gift, "reverse", "key_a") == (200, "reversed")
    assert await api.balances() == {}
    (_, reversed_) = await api.announced()
    assert (reversed_.payment_id, reversed_.version) == (counted.payment_id, 2)
    assert (reversed_.status, reversed_.refunded) == (PaymentStatus.REFUNDED, counted.captured)
    async with api.books.database.reading() as session:
        rows = await session.execute(select(POSTINGS.c.cause).order_by(POSTINGS.c.number))
        causes = [row.cause for row in rows]
    assert causes == [f"{gift}#1", f"{gift}#2"]


async def test_the_history_names_who_decided_when_and_why(api: ApprovalApi) -> None:
    gift = await recorded(api)
    await decided(api, gift, "approve", "key_b", {"reason": "on the statement"})
    await decided(api, gift, "reverse", "key_c", {"reason": "bounced"})
    shown = (await api.ask("GET", "/v1/offline-gifts", query="drive=winter")).json()["data"][0]
    assert [(step["action"], step["by"], step["reason"]) for step in shown["history"]] == [
        ("record", "key_a", None),
        ("approve", "key_b", "on the statement"),
        ("request_reversal", "key_c", "bounced"),
    ]
    assert {step["at"] for step in shown["history"]} == {rfc3339(api.books.clock.now())}
    assert shown["evidence"] == "line 17"


async def test_one_key_never_decides_alone(api: ApprovalApi) -> None:
    gift = await recorded(api)
    needed = (409, "/problems/second-approver-needed")
    assert await decided(api, gift, "approve", "key_a") == needed
    assert await decided(api, gift, "approve", "") == needed
    assert await api.announced() == []
    await decided(api, gift, "approve", "key_b")
    await decided(api, gift, "reverse", "key_a")
    assert await decided(api, gift, "reverse", "key_a") == needed
    assert len(await api.announced()) == 1


async def test_repeated_decisions_change_nothing_and_impossible_ones_are_refused(api: ApprovalApi) -> None:
    impossible = (409, "/problems/approval-state")
    gift = await recorded(api)
    assert await decided(api, gift, "reverse", "key_b") == impossible
    assert await decided(api, gift, "approve", "key_b") == (200, "approved")
    assert await decided(api, gift, "approve", "key_c") == (200, "approved")
    assert await decided(api, gift, "reject", "key_b", {"reason": "no"}) == impossible
    await decided(api, gift, "reverse", "key_b")
    assert await decided(api, gift, "approve", "key_c") == (200, "reversal_requested")
    await decided(api, gift, "reverse", "key_c")
    assert await decided(api, gift, "reverse", "key_c") == (200, "reversed")
    assert await decided(api, gift, "approve", "key_b") == impossible
    other = await recorded(api)
    assert await decided(api, other, "reject", "key_a", {"reason": "typo"}) == (200, "rejected")
    assert await decided(api, other, "reject", "key_b", {"reason": "again"}) == (200, "rejected")
    assert await decided(api, other, "approve", "key_b") == impossible
    assert len(await api.announced()) == 2
    assert len((await api.ask("GET", "/v1/offline-gifts")).json()["data"][0]["history"]) == 2


async def test_approvals_at_the_same_time_count_a_gift_once(api: ApprovalApi) -> None:
    gift = await recorded(api)
    replies = await asyncio.gather(*(decided(api, gift, "approve", f"key_{n}") for n in range(8)))
    assert replies == [(200, "approved")] * 8
    assert await api.balances() == {"offline_clearing": 15_000, "drive_raised": -15_000}
    assert len(await api.announced()) == 1


async def test_a_repeated_idempotency_key_records_one_gift(api: ApprovalApi) -> None:
    body = a_gift(api)
    first = await api.ask("POST", GIFTS, body, once="k")
    again = await api.ask("POST", GIFTS, body, once="k", key="key_b")
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    other = await api.ask("POST", GIFTS, a_gift(api, "1.00"), once="k")
    assert (other.status, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await stored(api) == 1


async def stored(api: ApprovalApi) -> int:
    async with api.books.database.reading() as session:
        return int((await session.execute(select(func.count()).select_from(OFFLINE_GIFTS))).scalar_one())


@pytest.mark.parametrize(
    ("wrong", "status", "problem"),
    [
        ({"amount": {"currency": "EUR", "value": "1.00"}}, 422, "currency-not-accepted"),
        ({"amount": {"currency": "USD", "value": "0.00"}}, 422, "invalid-request"),
        ({"amount": {"currency": "USD", "value": "99999999999999.00"}}, 422, "amount-too-large"),
        ({"amount": {"currency": "USD", "value": 5}}, 422, "invalid-request"),
        ({"method": "barter"}, 422, "invalid-request"),
        ({"evidence": ""}, 422, "invalid-request"),
        ({"evidence": "x" * 2_001}, 422, "invalid-request"),
        ({"evidence": "nul \x00"}, 422, "invalid-request"),
        ({"creator": "nobody"}, 422, "invalid-request"),
        ({"creator": "a/../b"}, 422, "invalid-request"),
        ({"received_at": "2999-01-01T00:00:00Z"}, 422, "invalid-request"),
        ({"received_at": "0001-01-01T00:00:00Z"}, 422, "invalid-request"),
        ({"received_at": 5}, 422, "invalid-request"),
        ({"approved": True}, 422, "invalid-request"),
    ],
)
async def test_what_cannot_be_recorded_is_refused_and_stores_nothing(
    api: ApprovalApi, wrong: dict[str, Any], status: int, problem: str
) -> None:
    reply = await api.ask("POST", GIFTS, a_gift(api) | wrong)
    assert (reply.status, reply.json()["type"]) == (status, f"/problems/{problem}")
    pointers = [each["pointer"] for each in reply.json()["errors"]]
    assert all(each.startswith(f"/{next(iter(wrong))}") for each in pointers), pointers
    assert await stored(api) == 0


async def test_large_gifts_are_taken_past_what_the_processor_charges(api: ApprovalApi) -> None:
    assert await recorded(api, f"{MAX_UNITS // 100}.00")


async def test_a_closed_drive_takes_a_late_gift_and_a_draft_takes_none(api: ApprovalApi) -> None:
    for slug, state in (("past", "closed"), ("planned", "draft")):
        await api.books.consume(a_drive(partner="charity", slug=slug, state=state))
    assert (await api.ask("POST", "/v1/drives/past/offline-gifts", a_gift(api))).status == 201
    api.pledges.drives["planned"] = pledges_row = {
        "id": ids.new("drv"), "slug": "planned", "currency": "USD", "state": "draft", "test": False,
        "partner": "charity",
    }  # fmt: skip
    refused = await api.ask("POST", "/v1/drives/planned/offline-gifts", a_gift(api))
    assert (refused.status, refused.json()["type"]) == (409, "/problems/drive-not-opened")
    pledges_row["state"] = "live"  # opened since; its event is on its way
    assert (await api.ask("POST", "/v1/drives/planned/offline-gifts", a_gift(api))).status == 201


async def test_only_the_drives_partner_and_admins_see_and_decide(api: ApprovalApi) -> None:
    gift = await recorded(api)
    asked = [("POST", GIFTS, a_gift(api)), ("GET", "/v1/offline-gifts", None)]
    asked += [("POST", f"/v1/offline-gifts/{gift}/{name}", None) for name in ("approve", "reverse")]
    asked += [("POST", f"/v1/offline-gifts/{gift}/reject", {"reason": "no"})]
    for method, path, body in asked:
        query = "drive=winter" if method == "GET" else ""
        refused = await api.ask(method, path, body, partner="neighbour", key="key_n", query=query)
        assert (refused.status, refused.json()["type"]) == (403, "/problems/not-your-drive"), path
        assert (await api.ask(method, path, body, scopes=("ledger",), query=query)).status == 403
        assert (await api.ask(method, path, body, mode="test", query=query)).status == (
            403 if method == "POST" or query else 200
        )
    assert (await api.ask("GET", "/v1/offline-gifts", partner="neighbour")).json()["data"] == []
    for scopes in (("admin",), ("offline",)):
        seen = await api.ask("GET", "/v1/offline-gifts", scopes=scopes, query="status=pending")
        assert [each["id"] for each in seen.json()["data"]] == [gift]
    assert (await api.ask("POST", "/v1/offline-gifts/ofg_0/approve", None)).status == 404
    assert (await api.ask("POST", f"/v1/offline-gifts/{ids.new('ofg')}/approve")).status == 404
    approve = f"/v1/offline-gifts/{gift}/approve"
    assert (await api.ask("POST", approve, scopes=("admin",), partner="x", key="key_x")).status == 200


async def test_pages_list_every_gift_once_newest_first(api: ApprovalApi) -> None:
    made = [await recorded(api) for _ in range(5)]
    await decided(api, made[0], "approve", "key_b")
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        more = f"&after={after}" if after else ""
        page = (await api.ask("GET", "/v1/offline-gifts", query=f"drive=winter&limit=2{more}")).json()
        seen += [each["id"] for each in page["data"]]
        after = page["next"]
    assert seen == made[::-1]
    approved = await api.ask("GET", "/v1/offline-gifts", query="drive=winter&status=approved")
    assert [each["id"] for each in approved.json()["data"]] == [made[0]]


async def test_offline_money_is_no_processor_money(api: ApprovalApi) -> None:
    gift = await recorded(api)
    await decided(api, gift, "approve", "key_b")
    await api.books.apply([intent_succeeded("pi_1", 700, metadata(None, ids.new("plg"), api.drive.drive_id))])
    assert await api.books.database.read_whole(processor_balance) == {"USD": 700}
    assert await api.books.drift() == {"USD": 0}
