"""An offline gift counts in totals and boards, also where the process dies while it is approved."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, new_idempotency_key, running
from tests.waiting import until

GIFT = {
    "amount": {"currency": "USD", "value": "150.00"},
    "method": "bank",
    "received_at": "2022-01-07T12:00:00Z",
    "evidence": "line 17",
    "creator": "star",
}


async def second_key(system: EmbeddedSystem) -> str:
    made = await system.admin("POST", "/v1/keys", {"kind": "secret", "scopes": ["offline"]})
    assert made.status == 201, made.body
    return f"Bearer {made.body['key']}"


async def recorded(system: EmbeddedSystem) -> str:
    gift = await system.admin(
        "POST", "/v1/drives/winter/offline-gifts", GIFT, Idempotency_Key=new_idempotency_key()
    )
    assert (gift.status, gift.body["status"]) == (201, "pending"), gift.body
    return f"/v1/offline-gifts/{gift.body['id']}"


@pytest.mark.parametrize("point", ["payments.approvals.before_commit", "payments.approvals.after_commit"])
async def test_a_gift_counts_once_when_the_process_dies_while_it_is_approved(
    tmp_path: Path, point: str
) -> None:
    async with running(tmp_path / "system") as system:
        await system.open_drive("winter")
        key, gift = await second_key(system), await recorded(system)
        alone = await system.admin("POST", f"{gift}/approve")
        assert (alone.status, alone.body["type"]) == (409, "/problems/second-approver-needed")
        system.kill()
        await system.start(ATAA_CRASH_AT=f"{point}:1")
        with contextlib.suppress(aiohttp.ClientError):
            await system.request("POST", f"{gift}/approve", Authorization=key)
        await system.wait_until_killed()
        await system.start()
        approved = await system.request("POST", f"{gift}/approve", Authorization=key)
        assert (approved.status, approved.body["status"]) == (200, "approved")
        totals = await system.wait_for_raised("winter", "150.00", offline="150.00", captured="0.00")
        assert (totals["donations"], totals["donors"]) == (1, 1)

        async def leads() -> bool:
            board = await system.request("GET", "/v1/drives/winter/leaderboards/creators")
            return [(one["slug"], one["raised"]["value"]) for one in board.body["data"]] == [
                ("star", "150.00")
            ]

        await until(leads)
        assert await system.wait_until_books_agree() == {}
