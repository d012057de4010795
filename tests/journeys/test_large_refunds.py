"""A refund past the threshold through the public API: asked for by one key, sent once another approves it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.embedded_system import Answer, EmbeddedSystem, running
from tests.waiting import until

ABOVE = {"ATAA_REFUND_APPROVAL_ABOVE": "20"}
POINTS = [
    "payments.large_refunds.before_commit", "payments.large_refunds.after_commit",
    "payments.refunds.after_send",
]  # fmt: skip


async def second_key(system: EmbeddedSystem) -> str:
    body = {"kind": "secret", "partner": "default", "scopes": ["refunds"]}
    made = await system.admin("POST", "/v1/keys", body)
    assert made.status == 201, made.body
    key: str = made.body["key"]

    async def known() -> bool:  # every process reads the keys each second
        return (await asked(system, key, "GET", "/v1/refunds")).status == 200

    await until(known)
    return key


async def asked(system: EmbeddedSystem, key: str, method: str, path: str, body: Any = None) -> Answer:
    return await system.request(method, path, body, Authorization=f"Bearer {key}")


async def waiting_refund(system: EmbeddedSystem, pledge: str) -> str:
    reply = await system.admin("POST", f"/v1/pledges/{pledge}/refunds", {"reason": "A zero too many"})
    assert (reply.status, reply.body["status"]) == (201, "pending"), reply.body
    assert reply.body["approval"]["state"] == "needed"
    return str(reply.body["id"])


async def test_two_keys_refund_what_one_key_cannot(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa", **ABOVE) as system:
        await system.open_drive("large")
        kept, returned = [await system.donate("large", "25.00") for _ in range(2)]
        await system.wait_for_raised("large", "50.00")
        other = await second_key(system)
        refund = await waiting_refund(system, returned["id"])
        withdrawn = await waiting_refund(system, kept["id"])
        alone = await system.admin("POST", f"/v1/refunds/{refund}/approve")
        assert (alone.status, alone.body["type"]) == (409, "/problems/second-approver-needed")
        listed = (await asked(system, other, "GET", "/v1/refunds?approval=needed&drive=large")).body["data"]
        assert [one["id"] for one in listed] == [withdrawn, refund]
        assert {one["reason"] for one in listed} == {"A zero too many"}
        rejected = await system.admin("POST", f"/v1/refunds/{withdrawn}/reject", {"reason": "A mistake"})
        assert (rejected.status, rejected.body["approval"]["state"]) == (200, "rejected")
        assert await system.wait_until_books_agree() == {"USD": "50.00"}
        for _ in range(2):
            approved = await asked(system, other, "POST", f"/v1/refunds/{refund}/approve", {})
            assert (approved.status, approved.body["approval"]["state"]) == (200, "approved"), approved.body
        await system.wait_for_raised("large", "25.00", refunded="25.00")
        assert await system.wait_until_books_agree() == {"USD": "25.00"}
        small = await system.admin("POST", f"/v1/pledges/{kept['id']}/refunds", {"amount": usd("20.00")})
        assert "approval" not in small.body
        part = await system.admin("POST", f"/v1/pledges/{kept['id']}/refunds", {"amount": usd("0.01")})
        assert part.body["approval"]["state"] == "needed"
        assert "Traceback" not in system.log


@pytest.mark.parametrize("point", POINTS)
async def test_kill_while_a_refund_is_approved_sends_it_exactly_once(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa", **ABOVE) as system:
        await system.open_drive("large")
        pledge = await system.donate("large", "25.00")
        await system.donate("large", "10.00")
        await system.wait_for_raised("large", "35.00")
        other = await second_key(system)
        refund = await waiting_refund(system, pledge["id"])
        await until(system.is_drained)
        system.kill()
        await system.start(ATAA_CRASH_AT=f"{point}:1")
        path = f"/v1/refunds/{refund}/approve"
        with contextlib.suppress(aiohttp.ClientError):
            await asked(system, other, "POST", path, {})
        await system.wait_until_killed()
        await system.start()
        (found,) = (await asked(system, other, "GET", "/v1/refunds")).body["data"]
        decided = point != "payments.large_refunds.before_commit"
        assert found["approval"]["state"] == ("approved" if decided else "needed")
        again = await asked(system, other, "POST", path, {})
        assert (again.status, again.body["approval"]["state"]) == (200, "approved"), again.body
        await system.wait_for_raised("large", "10.00", refunded="25.00")
        assert await system.wait_until_books_agree() == {"USD": "10.00"}
        assert "Traceback" not in system.log


async def test_kill_after_a_refund_was_asked_for_keeps_it_waiting(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa", **ABOVE) as system:
        await system.open_drive("large")
        pledge = await system.donate("large", "25.00")
        await system.wait_for_raised("large", "25.00")
        system.kill()
        await system.start(ATAA_CRASH_AT="payments.refunds.after_reserve:1")
        path = f"/v1/pledges/{pledge['id']}/refunds"
        with contextlib.suppress(aiohttp.ClientError):
            await system.admin("POST", path, {}, Idempotency_Key="once")
        await system.wait_until_killed()
        await system.start()
        again = await system.admin("POST", path, {}, Idempotency_Key="once")
        assert (again.status, again.headers.get("Idempotency-Replayed")) == (201, "true")
        (found,) = (await system.admin("GET", "/v1/refunds")).body["data"]
        assert (found["id"], found["status"]) == (again.body["id"], "pending")
        assert await system.wait_until_books_agree() == {"USD": "25.00"}


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}
