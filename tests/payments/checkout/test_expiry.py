"""A cancelled pledge's ticket leaves the queue and its checkout is expired; later money counts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backbone.contracts import PledgeChanged, PledgeMade, PledgeStatus
from tests.payments.harness import Harness, a_drive, a_pledge, running
from tests.waiting import until


def cancelled(pledge: PledgeMade, version: int = 2) -> PledgeChanged:
    """The same pledge, cancelled."""
    state = pledge.model_dump() | {"version": version, "status": PledgeStatus.CANCELLED}
    return PledgeChanged.model_validate(state)


async def test_the_open_checkout_of_a_cancelled_pledge_is_expired(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.publish_events(drive, pledge)
        url = await harness.opened(pledge.pledge_id)
        await harness.publish_events(cancelled(pledge))
        await harness.status(pledge.pledge_id, "lapsed")  # by Stripe's event that the session ended
        assert (await harness.checkout(pledge.pledge_id))["checkout"] is None
        async with harness.http.post(f"{url}/pay", json={"card": "4242424242424242"}) as answer:
            assert answer.status == 410
        await harness.drained()
        assert await harness.books() == {}


async def test_a_pledge_cancelled_in_the_queue_gets_no_checkout(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        drive = a_drive()
        pledges = [a_pledge(drive) for _ in range(3)]
        await harness.publish_events(drive, *pledges, *(cancelled(pledge) for pledge in pledges))
        kept = await harness.donate(a_drive())
        await harness.status(kept, "paid")
        await harness.drained()
        for pledge in pledges:
            found = await harness.checkout(pledge.pledge_id)
            assert (found["checkout"], found["queue"], found["status"]) == (None, None, None)


async def test_a_checkout_being_opened_is_expired_once_it_is_open(tmp_path: Path) -> None:
    async with running(tmp_path, stripe_timeout_s=5.0) as harness:
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.faults(error_rate=1.0)
        await harness.publish_events(drive, pledge)
        await until(lambda: _being_opened(harness, pledge))
        await harness.publish_events(cancelled(pledge))
        await until(lambda: _hidden(harness, pledge))
        await harness.faults()
        await harness.status(pledge.pledge_id, "lapsed")
        await harness.drained()


async def _being_opened(harness: Harness, pledge: PledgeMade) -> bool:
    return ((await harness.checkout(pledge.pledge_id)).get("queue") or {}).get("position") == 0


async def _hidden(harness: Harness, pledge: PledgeMade) -> bool:
    return (await harness.checkout(pledge.pledge_id))["queue"] is None


@pytest.mark.parametrize(
    "faults", [{}, {"error_rate": 0.5}, {"error_after_rate": 0.5}, {"rate_limit_per_s": 20}]
)
async def test_a_payment_that_races_the_cancellation_is_counted_or_refused(
    tmp_path: Path, faults: dict[str, Any]
) -> None:
    async with running(tmp_path) as harness:
        drive = a_drive()
        pledges = [a_pledge(drive) for _ in range(12)]
        await harness.publish_events(drive, *pledges)
        urls = [await harness.opened(pledge.pledge_id) for pledge in pledges]
        await harness.faults(**faults)
        await asyncio.gather(
            harness.publish_events(*(cancelled(pledge) for pledge in pledges)),
            *(_try_to_pay(harness, url, place) for place, url in enumerate(urls)),
        )
        await harness.faults()
        books = await harness.agreed_books()
        states = [(await harness.checkout(pledge.pledge_id))["status"] for pledge in pledges]
        assert set(states) <= {"paid", "lapsed"}
        assert sum(25 for state in states if state == "paid") == float(books.get("USD", 0))


async def _try_to_pay(harness: Harness, url: str, place: int) -> None:
    await asyncio.sleep(place * 0.06)  # spread over the round in which checkouts are expired
    async with harness.http.post(f"{url}/pay", json={"card": "4242424242424242"}) as answer:
        assert answer.status in (200, 410), await answer.text()
