"""A long queue at the sandbox: the lane, the payments, and books equal to the sandbox's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backbone.contracts import DriveChanged
from backbone.database.database import Database
from services.payments.overflow.tables import LINKS
from services.payments.tables import MESSAGING_TABLES
from tests.payments.harness import Harness, a_drive, a_pledge, running
from tests.waiting import until

QUEUE: dict[str, Any] = {"stripe_rate_per_s": 10.0, "checkout_overflow_after_s": 1.0}


async def prepared(harness: Harness, folder: Path, drive: DriveChanged) -> None:
    """Publish a drive, and wait until its five links are active."""
    harness.pledges.drives[drive.drive_id] = {"id": drive.drive_id, "title": "Winter", "menu": []}
    await harness.publish_events(drive)
    database = Database(f"sqlite:///{folder / 'payments.db'}", MESSAGING_TABLES)

    async def active() -> bool:
        async with database.reading() as session:
            statement = select(func.count()).select_from(LINKS).where(LINKS.c.state == "active")
            return bool((await session.execute(statement)).scalar_one() == 5)

    await until(active)
    await database.close()


@pytest.mark.parametrize(
    "faults", [{}, {"duplicate": 3, "reorder": True}, {"unsubscribed": ["checkout.session.completed"]}]
)
async def test_a_long_queue_is_paid_through_links_and_the_books_agree(
    tmp_path: Path, faults: dict[str, Any]
) -> None:
    async with running(tmp_path, **QUEUE) as harness:
        drive = a_drive()
        await prepared(harness, tmp_path, drive)
        await harness.faults(**faults)
        pledges = [a_pledge(drive, (2_500, 1_000, 1_234)[place % 3]) for place in range(45)]
        await harness.publish_events(*pledges)
        urls = await asyncio.gather(*(harness.opened(each.pledge_id) for each in pledges))
        through_links = [url for url in urls if "client_reference_id" in url]
        assert 15 <= len(through_links) <= 30
        await asyncio.gather(*(harness.pay(url) for url in urls))
        again = await harness.pay(through_links[0])  # a donor pays a second time
        assert again["payment_status"] == "paid"
        for each in pledges:
            await harness.status(each.pledge_id, "paid")
        await harness.agreed_books()
        uncredited = [event for event in harness.published if event.pledge_id is None]
        assert [event.status for event in uncredited] == ["captured"]
        assert all(event.source is None and event.creator_id is None for event in uncredited)
        credited = {event.pledge_id for event in harness.published} - {None}
        assert credited == {each.pledge_id for each in pledges}


async def test_without_a_rate_limit_no_link_is_prepared(tmp_path: Path) -> None:
    async with running(tmp_path, checkout_overflow_after_s=1.0) as harness:
        await harness.donate(a_drive())
        await harness.drained()
        assert harness.pledges.drives_asked == 0
