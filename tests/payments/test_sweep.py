"""Refunds, disputes and captures whose webhooks were never sent are found by sweeping Stripe's lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.payments.stage import STRIPE_KEY, Stage, a_drive, running
from tests.waiting import until

REFUNDS = ["refund.created", "refund.updated", "refund.failed", "charge.refunded", "charge.refund.updated"]
DISPUTES = [
    "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed",
    "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
]  # fmt: skip
CAPTURES = ["payment_intent.succeeded", "checkout.session.completed"]
FAILS_A_REFUND = "4000000000005126"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with running(tmp_path, stripe_sweep_s=0.3) as stage:
        yield stage


async def stripe(stage: Stage, method: str, path: str, **form: Any) -> dict[str, Any]:
    """One call of the sandbox's Stripe API, as the dashboard makes it."""
    headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
    async with stage.http.request(method, f"{stage.sandbox}{path}", data=form, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


async def intent_of(stage: Stage, pledge: str) -> str:
    """The payment intent of a pledge, asked of Stripe."""
    listed = await stripe(stage, "GET", "/v1/payment_intents?limit=100")
    return next(each["id"] for each in listed["data"] if each["metadata"]["ataa_pledge"] == pledge)


async def dispute(stage: Stage, intent: str, status: str) -> None:
    body = {"payment_intent": intent, "status": status}
    async with stage.http.post(f"{stage.sandbox}/_sandbox/disputes", json=body) as answer:
        assert answer.status == 200, await answer.text()


def found(kind: str, why: str) -> float:
    labels = {"type": kind, "why": why}
    return REGISTRY.get_sample_value("ataa_stripe_sweep_found_total", labels) or 0.0


async def test_a_refund_at_the_dashboard_without_its_webhooks_is_subtracted(stage: Stage) -> None:
    before = found("refund", "missing")
    drive = a_drive()
    pledge = await stage.give(drive, 2_500)
    await stage.give(drive, 1_000)
    await stage.status(pledge, "paid")
    await stage.faults(unsubscribed=REFUNDS)
    intent = await intent_of(stage, pledge)
    await stripe(stage, "POST", "/v1/refunds", payment_intent=intent, amount=700)
    await until(lambda: books_are(stage, "28.00"))
    assert await stage.agreed() == {"USD": "28.00"}
    assert found("refund", "missing") == before + 1


async def books_are(stage: Stage, net: str) -> bool:
    return (await stage.books()).get("USD") == net


async def test_a_dispute_without_its_webhooks_is_subtracted_and_returned_when_it_is_won(stage: Stage) -> None:
    drive = a_drive()
    pledge = await stage.give(drive, 2_500)
    await stage.status(pledge, "paid")
    await stage.faults(unsubscribed=DISPUTES)
    intent = await intent_of(stage, pledge)
    await dispute(stage, intent, "needs_response")
    await stage.status(pledge, "disputed")
    assert await stage.agreed() == {"USD": "0.00"}
    await dispute(stage, intent, "won")
    await stage.status(pledge, "paid")
    assert await stage.agreed() == {"USD": "25.00"}


async def test_a_refund_that_fails_later_without_its_webhooks_is_added_again(stage: Stage) -> None:
    drive = a_drive()
    pledge = await stage.give(drive, 2_500, FAILS_A_REFUND)
    await stage.status(pledge, "paid")
    await stage.faults(unsubscribed=["refund.updated", "refund.failed"])
    await stage.refund(pledge, "whole")
    await stage.status(pledge, "refunded")
    await stage.status(pledge, "paid")
    assert await stage.agreed() == {"USD": "25.00"}


async def test_a_capture_without_its_webhooks_is_counted(stage: Stage) -> None:
    before = found("capture", "missing")
    await stage.faults(unsubscribed=CAPTURES)
    pledge = await stage.give(a_drive(), 2_500)
    await stage.status(pledge, "paid")
    assert await stage.agreed() == {"USD": "25.00"}
    assert found("capture", "missing") == before + 1


async def test_a_refunded_capture_of_which_nothing_is_known_is_counted_and_subtracted(stage: Stage) -> None:
    await stage.faults(unsubscribed=REFUNDS + CAPTURES)
    pledge = await stage.give(a_drive(), 2_500)
    intent = await intent_of(stage, pledge)
    await stripe(stage, "POST", "/v1/refunds", payment_intent=intent, amount=500)
    await stage.status(pledge, "partly_refunded")
    assert await stage.agreed() == {"USD": "20.00"}


async def test_where_all_webhooks_come_the_sweep_finds_nothing_and_restates_nothing(stage: Stage) -> None:
    before = [found(kind, why) for kind in ("capture", "refund", "dispute") for why in ("missing", "changed")]
    drive = a_drive()
    pledges = [await stage.give(drive, 1_000 * nth) for nth in range(1, 6)]
    for pledge in pledges:
        await stage.status(pledge, "paid")
    await stage.refund(pledges[0], "part", {"amount": {"currency": "USD", "value": "1.00"}})
    await dispute(stage, await intent_of(stage, pledges[1]), "needs_response")
    await stage.agreed()
    said = len(stage.said)
    await asyncio.sleep(4.0)  # the sweep looks at what is 2 s old
    after = [found(kind, why) for kind in ("capture", "refund", "dispute") for why in ("missing", "changed")]
    assert after == before
    assert len(stage.said) == said
