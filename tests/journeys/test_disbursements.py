"""A disbursement is reversed once, also where the process dies while the second key confirms it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, running

POINTS = ["payments.approvals.before_commit", "payments.approvals.after_commit"]


async def second_key(system: EmbeddedSystem) -> str:
    made = await system.admin("POST", "/v1/keys", {"kind": "secret", "scopes": ["ledger"]})
    assert made.status == 201, made.body
    return f"Bearer {made.body['key']}"


async def paid_out(system: EmbeddedSystem, key: str) -> str:
    """The path of an approved disbursement of 10.00."""
    made = await system.admin(
        "POST",
        "/v1/drives/winter/disbursements",
        {
            "beneficiary": "Warmth",
            "amount": {"currency": "USD", "value": "10.00"},
            "paid_at": "2022-01-07T12:00:00Z",
            "reference": "transfer 17",
            "evidence": "line 17",
        },
    )
    assert made.status == 201, made.body
    path = f"/v1/disbursements/{made.body['id']}"
    approved = await system.request("POST", f"{path}/approve", Authorization=key)
    assert (approved.status, approved.body["status"]) == (200, "approved")
    return path


async def disbursed(system: EmbeddedSystem) -> list[tuple[str, str]]:
    """What was posted to and from `disbursed`, as debit and amount."""
    ledger = await system.admin("GET", "/v1/drives/winter/ledger?limit=100")
    return [
        (row["debit"], row["amount"]["value"])
        for row in ledger.body["data"]
        if "disbursed" in (row["debit"], row["credit"])
    ]


@pytest.mark.parametrize("point", POINTS)
async def test_a_disbursement_is_reversed_once_when_the_process_dies(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "system") as system:
        await system.open_drive("winter", beneficiaries=[{"name": "Warmth", "share_bps": 10_000}])
        await system.donate("winter", "25.00")
        await system.wait_until_books_agree()
        key = await second_key(system)
        path = await paid_out(system, key)
        assert (await system.admin("POST", f"{path}/reverse")).body["status"] == "reversal_requested"
        system.kill()
        await system.start(ATAA_CRASH_AT=f"{point}:1")
        with contextlib.suppress(aiohttp.ClientError):
            await system.request("POST", f"{path}/reverse", Authorization=key)
        await system.wait_until_killed()
        await system.start()
        confirmed = await system.request("POST", f"{path}/reverse", Authorization=key)
        assert (confirmed.status, confirmed.body["status"]) == (200, "reversed")
        assert await disbursed(system) == [("beneficiary_payable", "10.00"), ("disbursed", "10.00")]
        (shown,) = (await system.request("GET", "/v1/drives/winter/disbursements")).body["data"]
        assert shown["reversed_at"] is not None
