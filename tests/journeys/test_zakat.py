"""Zakat from the pledge to the beneficiary, through the public API, also where the process dies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.journeys.test_disbursements import second_key

POINTS = ["payments.approvals.before_commit", "payments.approvals.after_commit"]
ALL = [{"name": "Warmth", "share_bps": 10_000}]


async def balances(system: EmbeddedSystem) -> dict[str, str]:
    answer = await system.admin("GET", "/v1/drives/winter/trial-balance")
    return {each["account"]: each["balance"]["value"] for each in answer.body["accounts"]}


async def zakat_of(system: EmbeddedSystem) -> dict[str, str]:
    answer = await system.admin("GET", "/v1/drives/winter/statement")
    (line,) = answer.body["currencies"]
    return {name: amount["value"] for name, amount in line["zakat"].items()}


async def disburse(system: EmbeddedSystem, value: str, **more: Any) -> tuple[int, Any]:
    body = {
        "beneficiary": "Warmth", "amount": {"currency": "USD", "value": value},
        "paid_at": "2022-01-07T12:00:00Z", "reference": "transfer 17", "evidence": "line 17", **more,
    }  # fmt: skip
    made = await system.admin("POST", "/v1/drives/winter/disbursements", body)
    return made.status, made.body


@pytest.mark.parametrize("point", POINTS)
async def test_zakat_is_kept_apart_and_paid_out_once_when_the_process_dies(
    tmp_path: Path, point: str
) -> None:
    async with running(tmp_path / "system") as system:
        await system.open_drive("winter", beneficiaries=ALL, zakat_eligible=True)
        await system.donate("winter", "25.00", purpose="zakat")
        await system.donate("winter", "10.00", purpose="sadaqah")
        await system.wait_for_raised("winter", "35.00")
        await system.wait_until_books_agree()
        found = await balances(system)
        assert (found["drive_raised"], found["drive_raised_zakat"]) == ("-10.00", "-25.00")
        key = await second_key(system)
        status, problem = await disburse(system, "10.01")
        assert (status, problem["type"]) == (409, "/problems/disbursement-exceeds-balance")
        status, made = await disburse(system, "20.00", fund="zakat")
        assert (status, made["fund"]) == (201, "zakat")
        path = f"/v1/disbursements/{made['id']}/approve"
        system.kill()
        await system.start(ATAA_CRASH_AT=f"{point}:1")
        with contextlib.suppress(aiohttp.ClientError):
            await system.request("POST", path, Authorization=key)
        await system.wait_until_killed()
        await system.start()
        approved = await system.request("POST", path, Authorization=key)
        assert (approved.status, approved.body["status"]) == (200, "approved")
        assert (await balances(system))["disbursed_zakat"] == "-20.00"
        zakat = await zakat_of(system)
        assert (zakat["raised"], zakat["paid_out"]) == ("25.00", "20.00")
        (shown,) = (await system.request("GET", "/v1/drives/winter/disbursements")).body["data"]
        assert (shown["fund"], shown["amount"]["value"]) == ("zakat", "20.00")


async def test_zakat_is_refused_where_the_drive_does_not_take_it(tmp_path: Path) -> None:
    async with running(tmp_path / "system") as system:
        await system.open_drive("winter", beneficiaries=ALL)
        body = {"amount": {"currency": "USD", "value": "25.00"}, "purpose": "zakat"}
        refused = await system.admin("POST", "/v1/drives/winter/pledges", body, Idempotency_Key="one")
        assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/purpose")
