"""A gift through payments: ticket, checkout, webhook, facts, ledger, announcement."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backbone.money import Money
from tests.payments.stage import Stage, a_drive, running


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with running(tmp_path) as stage:
        yield stage


async def test_a_gift_is_paid_posted_and_announced(stage: Stage) -> None:
    drive = a_drive()
    pledge = await stage.give(drive, 2_500)
    await stage.status(pledge, "paid")
    await stage.quiet()
    assert await stage.books() == {"USD": "25.00"} == await stage.witness()
    assert [event.captured for event in stage.said] == [Money(2_500, "USD")]
    assert stage.said[0].creator_id is not None
    assert not stage.said[0].held
