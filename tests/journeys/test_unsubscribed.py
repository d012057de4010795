"""The webhook endpoint is not subscribed to refunds, disputes or captures: totals are correct anyway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.system import STRIPE_KEY, System, running
from tests.waiting import until

REFUNDS = ["refund.created", "refund.updated", "refund.failed", "charge.refunded"]
DISPUTES = ["charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed"]
CAPTURES = ["payment_intent.succeeded", "checkout.session.completed"]


async def in_the_dashboard(system: System, pledge: dict[str, Any], amount: int) -> None:
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


async def intent_of(system: System, pledge: dict[str, Any]) -> str:
    url = f"{system.sandbox_url}/v1/payment_intents?limit=100"
    listed = await system.request("GET", url, Authorization=f"Bearer {STRIPE_KEY}")
    return next(one["id"] for one in listed.body["data"] if one["metadata"]["ataa_pledge"] == pledge["id"])


async def test_refunds_disputes_and_gifts_nobody_told_of_end_in_the_totals(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("winter")
        gifts = [await system.give("winter") for _ in range(3)]
        await system.raised("winter", "75.00")
        await system.faults(unsubscribed=[*REFUNDS, *DISPUTES, *CAPTURES])
        await in_the_dashboard(system, gifts[0], 700)
        dispute = {"payment_intent": await intent_of(system, gifts[1]), "status": "needs_response"}
        answer = await system.request("POST", f"{system.sandbox_url}/_sandbox/disputes", dispute)
        assert answer.status == 200, answer.body
        await system.give("winter", "40.00")
        await system.raised("winter", "83.00", captured="115.00", refunded="7.00", disputed="25.00")
        assert await system.agree() == {"USD": "83.00"}
        said = [json.loads(line) for line in system.log.splitlines() if line.startswith("{")]
        finds = [line["kind"] for line in said if line["event"] == "sweep.found"]
        assert sorted(finds) == ["capture", "dispute", "refund"]  # each kind once


@pytest.mark.parametrize("point", ["payments.sweep.before_commit:1", "payments.sweep.after_record:1"])
async def test_a_kill_while_the_sweep_records_loses_and_doubles_nothing(tmp_path: Path, point: str) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("winter")
        gift = await system.give("winter")
        await system.raised("winter", "25.00")
        await system.faults(unsubscribed=REFUNDS)
        system.kill()
        await in_the_dashboard(system, gift, 700)
        await asyncio.sleep(3)  # old enough for the sweep
        await system.start(ATAA_CRASH_AT=point)
        await system.died()
        await system.start()
        await system.raised("winter", "18.00", refunded="7.00")
        await until(system.quiet)
        assert await system.agree() == {"USD": "18.00"}
