"""The books agree although webhooks are repeated, reordered, late and lost, and Stripe's API fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from backbone.contracts import PledgeMade
from tests.payments.harness import STRIPE_KEY, Harness, a_drive, a_pledge, running
from tests.waiting import until

DISPUTED, REFUND_FAILS = "4000000000000259", "4000000000005126"
CARDS = ("4242424242424242", "4242424242424242", DISPUTED, REFUND_FAILS)


async def give_and_refund(harness: Harness, pledge: str, n: int) -> None:
    """Pledge and pay; every third donation is refunded in part."""
    await harness.pay(await harness.opened(pledge), CARDS[n % len(CARDS)])
    if n % 3 == 0:
        await harness.status(pledge, "paid")
        await harness.refund(pledge, f"refund-{n}", {"amount": {"currency": "USD", "value": "1.00"}})


async def test_under_all_faults_combined_the_books_agree(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        await harness.faults(
            duplicate=3,
            reorder=True,
            delay_ms=500,
            error_rate=0.05,
            error_after_rate=0.1,
            timeout_after_success_rate=0.05,
            drop_rate=0.2,
        )
        drive = a_drive()
        pledges = [a_pledge(drive, 1_000 + n) for n in range(40)]
        await harness.publish_events(drive, *pledges)
        await asyncio.gather(
            *(give_and_refund(harness, pledge.pledge_id, n) for n, pledge in enumerate(pledges))
        )
        await until(lambda: all_that_is_to_come_came(harness, pledges))
        await harness.agreed_books()


async def all_that_is_to_come_came(harness: Harness, pledges: list[PledgeMade]) -> bool:
    """Whether the sandbox has made the disputes and refund failures that it makes a second later."""
    disputes, refunds = [await listed(harness, kind) for kind in ("disputes", "refunds")]
    failed = [refund for refund in refunds if refund["status"] == "failed"]
    to_dispute = [n for n in range(len(pledges)) if CARDS[n % 4] == DISPUTED]
    to_fail = [n for n in range(len(pledges)) if CARDS[n % 4] == REFUND_FAILS and n % 3 == 0]
    return (len(disputes), len(failed)) == (len(to_dispute), len(to_fail))


async def listed(harness: Harness, kind: str) -> list[dict[str, Any]]:
    """The sandbox's objects of a kind."""
    headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
    async with harness.http.get(f"{harness.sandbox}/v1/{kind}?limit=100", headers=headers) as answer:
        if answer.status != 200:
            return []  # an injected fault
        found: list[dict[str, Any]] = (await answer.json())["data"]
    return found


async def test_webhooks_that_are_never_delivered_are_found(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        await harness.faults(drop_rate=1)
        pledge = await harness.donate(a_drive(), 4_200)
        await harness.status(pledge, "paid")
        await harness.drained()
        assert await harness.books() == {"USD": "42.00"}


async def test_attempts_in_flight_at_a_crash_are_finished_by_the_next_process(tmp_path: Path) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in range(10)]
    async with running(tmp_path, stripe_timeout_s=30.0) as harness:
        await harness.faults(timeout_after_success_rate=1)
        await harness.publish_events(drive, *pledges)

        async def under_way() -> bool:
            waiting = (await harness.ask("GET", "/internal/quiet")).json()
            return waiting["attempts"] == 10

        await until(under_way)
    async with running(tmp_path) as harness:
        await asyncio.gather(*(harness.opened(pledge.pledge_id) for pledge in pledges))
