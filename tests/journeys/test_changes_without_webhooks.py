"""The webhook endpoint is not subscribed to refunds, disputes or captures: totals are correct anyway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.embedded_system import STRIPE_KEY, EmbeddedSystem, running
from tests.waiting import until

REFUNDS = ["refund.created", "refund.updated", "refund.failed", "charge.refunded"]
DISPUTES = ["charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed"]
CAPTURES = ["payment_intent.succeeded", "checkout.session.completed"]


async def refund_in_stripe_dashboard(system: EmbeddedSystem, pledge: dict[str, Any], amount: int) -> None:
    """Refund a donation at Stripe itself, not through the API."""
    form = f"payment_intent={await intent_of(system, pledge)}&amount={amount}".encode()
    answer = await system.request(
        "POST",
        f"{system.sandbox_url}/v1/refunds",
        form,
        Authorization=f"Bearer {STRIPE_KEY}",
        Content_Type="application/x-www-form-urlencoded",
    )
    assert answer.status == 200, answer.body


async def intent_of(system: EmbeddedSystem, pledge: dict[str, Any]) -> str:
    url = f"{system.sandbox_url}/v1/payment_intents?limit=100"
    listed = await system.request("GET", url, Authorization=f"Bearer {STRIPE_KEY}")
    return next(one["id"] for one in listed.body["data"] if one["metadata"]["ataa_pledge"] == pledge["id"])


async def test_changes_without_webhooks_reach_the_totals(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("winter")
        donations = [await system.donate("winter") for _ in range(3)]
        await system.wait_for_raised("winter", "75.00")
        await system.faults(unsubscribed=[*REFUNDS, *DISPUTES, *CAPTURES])
        await refund_in_stripe_dashboard(system, donations[0], 700)
        dispute = {"payment_intent": await intent_of(system, donations[1]), "status": "needs_response"}
        answer = await system.request("POST", f"{system.sandbox_url}/_sandbox/disputes", dispute)
        assert answer.status == 200, answer.body
        await system.donate("winter", "40.00")
        await system.wait_for_raised("winter", "83.00", captured="115.00", refunded="7.00", disputed="25.00")
        assert await system.wait_until_books_agree() == {"USD": "83.00"}
        output = [json.loads(line) for line in system.log.splitlines() if line.startswith("{")]
        finds = [line["kind"] for line in output if line["event"] == "sweep.found"]
        assert sorted(finds) == ["capture", "dispute", "refund"]  # each kind once


@pytest.mark.parametrize("point", ["payments.sweep.before_commit:1", "payments.sweep.after_record:1"])
async def test_kill_while_the_sweep_records_neither_loses_nor_duplicates_money(
    tmp_path: Path, point: str
) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("winter")
        donation = await system.donate("winter")
        await system.wait_for_raised("winter", "25.00")
        await system.faults(unsubscribed=REFUNDS)
        system.kill()
        await refund_in_stripe_dashboard(system, donation, 700)
        await asyncio.sleep(3)  # old enough for the sweep
        await system.start(ATAA_CRASH_AT=point)
        await system.wait_until_killed()
        await system.start()
        await system.wait_for_raised("winter", "18.00", refunded="7.00")
        await until(system.is_drained)
        assert await system.wait_until_books_agree() == {"USD": "18.00"}
