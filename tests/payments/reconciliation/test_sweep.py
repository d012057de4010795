"""The sweep of Stripe's lists finds refunds, disputes and captures whose webhooks were never sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.payments.harness import STRIPE_KEY, Harness, a_drive, running
from tests.waiting import until

REFUNDS = ["refund.created", "refund.updated", "refund.failed", "charge.refunded", "charge.refund.updated"]
DISPUTES = [
    "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed",
    "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
]  # fmt: skip
CAPTURES = ["payment_intent.succeeded", "checkout.session.completed"]
FAILS_A_REFUND = "4000000000005126"


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path, stripe_sweep_s=0.3) as harness:
        yield harness


async def stripe(harness: Harness, method: str, path: str, **form: Any) -> dict[str, Any]:
    """One call of the sandbox's Stripe API, as the dashboard makes it."""
    headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
    async with harness.http.request(method, f"{harness.sandbox}{path}", data=form, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


async def intent_of(harness: Harness, pledge: str) -> str:
    """The payment intent of a pledge, read from Stripe."""
    listed = await stripe(harness, "GET", "/v1/payment_intents?limit=100")
    return next(each["id"] for each in listed["data"] if each["metadata"]["ataa_pledge"] == pledge)


async def dispute(harness: Harness, intent: str, status: str) -> None:
    body = {"payment_intent": intent, "status": status}
    async with harness.http.post(f"{harness.sandbox}/_sandbox/disputes", json=body) as answer:
        assert answer.status == 200, await answer.text()


def found(kind: str, why: str) -> float:
    labels = {"type": kind, "why": why}
    return REGISTRY.get_sample_value("ataa_stripe_sweep_found_total", labels) or 0.0


async def test_a_dashboard_refund_without_webhooks_is_subtracted(harness: Harness) -> None:
    before = found("refund", "missing")
    drive = a_drive()
    pledge = await harness.donate(drive, 2_500)
    await harness.donate(drive, 1_000)
    await harness.status(pledge, "paid")
    await harness.faults(unsubscribed=REFUNDS)
    intent = await intent_of(harness, pledge)
    await stripe(harness, "POST", "/v1/refunds", payment_intent=intent, amount=700)
    await until(lambda: books_are(harness, "28.00"))
    assert await harness.agreed_books() == {"USD": "28.00"}
    assert found("refund", "missing") == before + 1


async def books_are(harness: Harness, net: str) -> bool:
    return (await harness.books()).get("USD") == net


async def test_a_dispute_without_its_webhooks_is_subtracted_and_returned_when_it_is_won(
    harness: Harness,
) -> None:
    drive = a_drive()
    pledge = await harness.donate(drive, 2_500)
    await harness.status(pledge, "paid")
    await harness.faults(unsubscribed=DISPUTES)
    intent = await intent_of(harness, pledge)
    await dispute(harness, intent, "needs_response")
    await harness.status(pledge, "disputed")
    assert await harness.agreed_books() == {"USD": "0.00"}
    await dispute(harness, intent, "won")
    await harness.status(pledge, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}


async def test_a_refund_that_fails_later_without_webhooks_is_added_again(harness: Harness) -> None:
    drive = a_drive()
    pledge = await harness.donate(drive, 2_500, FAILS_A_REFUND)
    await harness.status(pledge, "paid")
    await harness.faults(unsubscribed=["refund.updated", "refund.failed"])
    await harness.refund(pledge, "whole")
    await harness.status(pledge, "refunded")
    await harness.status(pledge, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}


async def test_a_capture_without_its_webhooks_is_counted(harness: Harness) -> None:
    before = found("capture", "missing")
    await harness.faults(unsubscribed=CAPTURES)
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}
    assert found("capture", "missing") == before + 1


async def test_an_unknown_refunded_capture_is_counted_and_subtracted(
    harness: Harness,
) -> None:
    await harness.faults(unsubscribed=REFUNDS + CAPTURES)
    pledge = await harness.donate(a_drive(), 2_500)
    intent = await intent_of(harness, pledge)
    await stripe(harness, "POST", "/v1/refunds", payment_intent=intent, amount=500)
    await harness.status(pledge, "partly_refunded")
    assert await harness.agreed_books() == {"USD": "20.00"}


async def test_with_all_webhooks_delivered_the_sweep_finds_and_restates_nothing(harness: Harness) -> None:
    before = [found(kind, why) for kind in ("capture", "refund", "dispute") for why in ("missing", "changed")]
    drive = a_drive()
    pledges = [await harness.donate(drive, 1_000 * nth) for nth in range(1, 6)]
    for pledge in pledges:
        await harness.status(pledge, "paid")
    await harness.refund(pledges[0], "part", {"amount": {"currency": "USD", "value": "1.00"}})
    await dispute(harness, await intent_of(harness, pledges[1]), "needs_response")
    await harness.agreed_books()
    published = len(harness.published)
    await asyncio.sleep(4.0)  # the sweep compares objects that are at least 2 s old
    after = [found(kind, why) for kind in ("capture", "refund", "dispute") for why in ("missing", "changed")]
    assert after == before
    assert len(harness.published) == published
