"""The queue by the API while Stripe refuses with 429: no donor is told a figure that grew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from backbone.contracts import PledgeMade
from tests.engines import fresh_postgres
from tests.payments.harness import Harness, a_drive, a_pledge, running
from tests.waiting import until

Figures = tuple[int, int]


@pytest.fixture(params=["sqlite", "postgresql"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    async with AsyncExitStack() as held:
        url = ""
        if request.param == "postgresql":
            url = await held.enter_async_context(fresh_postgres())
        yield await held.enter_async_context(running(tmp_path, database_url_payments=url))


class Donors:
    """Donors who wait, and what each was told."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.told: dict[str, list[Figures]] = {}

    def wait_for(self, pledges: list[PledgeMade]) -> None:
        self.told |= {each.pledge_id: [] for each in pledges}

    async def in_queue(self, pledge: str) -> None:
        """Wait until payments knows a pledge."""
        await until(lambda: self._harness.checkout(pledge))

    async def are_all_served(self) -> bool:
        """Ask once more; whether everybody has a checkout."""
        return await self.ask() == 0

    async def ask(self) -> int:
        """Ask once for everybody; how many have no checkout yet."""
        reply = await self._harness.ask("POST", "/internal/checkouts", {"ids": list(self.told)})
        found: dict[str, Any] = reply.json()["data"]
        for pledge, shown in found.items():
            if (queue := shown["queue"]) is not None:
                self.told[pledge].append((queue["position"], queue["eta_seconds"]))
        return sum(1 for each in self.told if not (found.get(each) or {}).get("checkout"))

    def grown(self) -> list[list[Figures]]:
        """The donors who were told a position or an estimate above one they were told before."""
        return [
            each
            for each in self.told.values()
            for figures in zip(*each, strict=True)
            if list(figures) != sorted(figures, reverse=True)
        ]


async def test_no_figure_grows_while_stripe_refuses_most_calls(harness: Harness) -> None:
    donors, drive = Donors(harness), a_drive()
    await harness.faults(rate_limit_per_s=30)
    await harness.publish_events(drive)
    for limit, many in ((30, 40), (10, 15), (60, 15)):
        await harness.faults(rate_limit_per_s=limit)
        pledges = [a_pledge(drive) for _ in range(many)]
        donors.wait_for(pledges)
        await harness.publish_events(*pledges)
        await donors.in_queue(pledges[-1].pledge_id)
        for _ in range(20):
            await donors.ask()
    await until(donors.are_all_served)
    assert donors.grown() == []
    assert max(position for each in donors.told.values() for position, _ in each) > 10
    assert any(len(set(each)) > 3 for each in donors.told.values())


async def test_a_refused_ticket_that_waits_again_moves_nobody_back(harness: Harness) -> None:
    """An optional parameter is refused: the ticket returns to the queue with its old number."""
    donors, drive = Donors(harness), a_drive()
    pledges = [a_pledge(drive) for _ in range(30)]
    for each in pledges[::3]:
        harness.pledges.details[each.pledge_id] = {"email": "not an address"}
    await harness.faults(rate_limit_per_s=20)
    donors.wait_for(pledges)
    await harness.publish_events(drive, *pledges)
    await until(donors.are_all_served)
    assert donors.grown() == []
