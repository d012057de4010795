"""Webhooks repeated, reordered, late and lost, Stripe failing all the while: the books still agree."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.payments.stage import Stage, a_drive, a_pledge, running
from tests.waiting import until

CARDS = ("4242424242424242", "4242424242424242", "4000000000000259", "4000000000005126")


async def give_and_refund(stage: Stage, pledge: str, n: int) -> None:
    """One donor's whole life: pay, and every third is refunded in part."""
    await stage.pay(await stage.opened(pledge), CARDS[n % len(CARDS)])
    if n % 3 == 0:
        await stage.status(pledge, "paid")
        await stage.refund(pledge, f"refund-{n}", {"amount": {"currency": "USD", "value": "1.00"}})


async def test_under_all_faults_together_the_books_agree(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.faults(
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
        await stage.tell(drive, *pledges)
        await asyncio.gather(
            *(give_and_refund(stage, pledge.pledge_id, n) for n, pledge in enumerate(pledges))
        )
        await stage.quiet(30.0)
        assert await stage.books() == await stage.witness()


async def test_webhooks_that_never_come_are_found(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.faults(drop_rate=1)
        pledge = await stage.give(a_drive(), 4_200)
        await stage.status(pledge, "paid")
        await stage.quiet()
        assert await stage.books() == {"USD": "42.00"}


async def test_what_was_on_its_way_when_the_process_ended_is_finished_by_the_next(tmp_path: Path) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in range(10)]
    async with running(tmp_path, stripe_timeout_s=30.0) as stage:
        await stage.faults(timeout_after_success_rate=1)
        await stage.tell(drive, *pledges)

        async def under_way() -> bool:
            waiting = (await stage.ask("GET", "/internal/quiet")).json()
            return waiting["attempts"] == 10

        await until(under_way)
    async with running(tmp_path) as stage:
        await asyncio.gather(*(stage.opened(pledge.pledge_id) for pledge in pledges))
