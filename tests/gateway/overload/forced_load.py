"""Readings of the load that a test chooses."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.overload.ladder import BOUNDS, Step
from gateway.overload.readings import LAG_WINDOW, Reading

LAG_S: Final = 60.0
"""`ATAA_OVERLOAD_LAG_S` in tests (tests/conftest.py)."""


class ForcedLoad:
    """A `Source` of the readings that a test gives, each ten seconds after the one before."""

    def __init__(self) -> None:
        self._given: asyncio.Queue[Reading] = asyncio.Queue()
        self._taken = False
        self._at = 0.0

    async def next(self, stop: asyncio.Event) -> Reading:
        """See `Source.next`."""
        if self._taken:
            self._given.task_done()
            self._taken = False
        getting, stopping = asyncio.create_task(self._given.get()), asyncio.create_task(stop.wait())
        await asyncio.wait((getting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not getting.done():
            getting.cancel()
            return Reading(self._at)
        self._taken = True
        return getting.result()

    async def give(self, pressure: float, pledges_per_s: float = 0.0) -> None:
        """Give a window's worth of readings and one for each step, and wait until they are observed."""
        for _ in range(LAG_WINDOW + len(BOUNDS)):
            self._at += 10.0
            self._given.put_nowait(Reading(self._at, lag_s=pressure * LAG_S, pledges_per_s=pledges_per_s))
        await self._given.join()

    async def reach(self, step: Step) -> None:
        """Give no load, then the load under which `step` is entered, and no later one."""
        await self.give(0.0)
        await self.give(BOUNDS[step].enter * 1.001 if step else 0.0)
