"""A donation through payments: ticket, checkout, webhook, facts, ledger, announcement."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backbone.money import Money
from tests.payments.harness import Harness, a_drive, running


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


async def test_a_donation_is_paid_posted_and_announced(harness: Harness) -> None:
    drive = a_drive()
    pledge = await harness.donate(drive, 2_500)
    await harness.status(pledge, "paid")
    await harness.drained()
    assert await harness.books() == {"USD": "25.00"} == await harness.sandbox_books()
    assert [event.captured for event in harness.published] == [Money(2_500, "USD")]
    assert harness.published[0].creator_id is not None
    assert not harness.published[0].held
