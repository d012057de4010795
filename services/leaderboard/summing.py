"""Keeps the boards' sums up to date: once a second for every drive, and before a board is read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog
from prometheus_client import Gauge

from backbone.bus.protocol import partition_of
from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.http.problems import Overloaded
from backbone.wakeups import wait_for
from services.leaderboard import standings, starting_anew
from services.leaderboard.freshness import Assignment, Freshness

INTERVAL_S: Final = 1.0
REST_RATIO: Final = 9.0
"""The rest after a transaction while events are waiting, as a multiple of what it took."""
VALID_S: Final = 0.25
"""For how long reads share the sums that one of them brought up to date."""
ROUNDS: Final = 40
"""Transactions that a read waits for; a drive that lacks more is being caught up with."""
MAX_REMEMBERED: Final = 1_000

log = structlog.get_logger()
_DUE: Final = Gauge("ataa_leaderboard_boards_due", "Drives whose boards lacked payments when last looked at.")


class UpToDate(NamedTuple):
    """When a drive's sums were brought up to date, on the loop's clock, and how fresh they were then."""

    at: float
    as_of: str | None


class Summing:
    """Brings sums up to date; one at a time for each drive."""

    def __init__(
        self,
        database: Database,
        freshness: Freshness,
        clock: Clock,
        *,
        rounds: int = ROUNDS,
        most: int = standings.MAX_PAYMENTS,
        are_events_waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._rounds = rounds
        self._most = most
        self._are_events_waiting = are_events_waiting
        self._freshness = freshness
        self._clock = clock
        self._assignments: dict[int, Assignment] = {}
        self._under_way: dict[str, asyncio.Task[UpToDate]] = {}
        self._done: OrderedDict[str, UpToDate] = OrderedDict()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, bring the drives of this process's partitions up to date once a second."""
        while not stop.is_set():
            try:
                await self.sum_due(stop)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("boards.not_summed", error=f"{type(error).__name__}: {error}")
            await wait_for(stop, INTERVAL_S)

    async def sum_due(self, stop: asyncio.Event | None = None) -> None:
        """Bring every drive up to date that lacks something, one transaction at a time in turn."""
        assignments = self._freshness.assignments()
        if assignments != self._assignments:
            await self._take_over()
            self._assignments = assignments
        now = self._clock.now()
        async with self._database.reading() as session:
            due = await session.run_sync(lambda inner: standings.find_due(inner, now))
        waiting = [drive_id for drive_id in due if partition_of(drive_id) in assignments]
        _DUE.set(len(waiting))
        while waiting and not (stop is not None and stop.is_set()):
            waiting = [drive_id for drive_id in waiting if not await self._take_turn(drive_id)]

    async def _take_over(self) -> None:
        """Look for payments that a process of an earlier version counted, whoever had the partitions."""
        async with self._database.transaction() as session:
            found = await session.run_sync(starting_anew.have_summed_again)
        if found:
            log.info("boards.summed_again", drives=len(found))

    async def _take_turn(self, drive_id: str) -> bool:
        """One transaction's worth; then a rest while events are waiting, which come first."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = await self._advance_or_leave(drive_id)
        if self._are_events_waiting():
            await asyncio.sleep(min(REST_RATIO * (loop.time() - began), INTERVAL_S))
        return done

    async def _advance_or_leave(self, drive_id: str) -> bool:
        """The same as `_advance`; a drive that cannot be summed does not stop the others."""
        try:
            return await self._advance(drive_id)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("boards.cannot_be_summed", drive=drive_id)
            return True

    async def _advance(self, drive_id: str) -> bool:
        """One transaction's worth; whether the drive lacks nothing more."""
        now = self._clock.now()
        async with self._database.transaction() as session:
            done = await session.run_sync(
                lambda inner: standings.bring_up_to_date(inner, drive_id, now, self._most)
            )
        await asyncio.sleep(0)
        return done

    async def up_to_date(self, drive_id: str, as_of: str | None) -> UpToDate:
        """Have a drive's sums contain everything that was counted before this call, or within `VALID_S`.

        `as_of` is what the caller knows of their freshness. Raises `Overloaded` while the drive lacks more
        than `rounds` transactions' worth.
        """
        done = self._done.get(drive_id)
        if done is not None and asyncio.get_running_loop().time() - done.at < VALID_S:
            return done
        task = self._under_way.get(drive_id)
        if task is None:
            task = self._under_way[drive_id] = asyncio.create_task(self._bring(drive_id, as_of))
        return await asyncio.shield(task)

    async def _bring(self, drive_id: str, as_of: str | None) -> UpToDate:
        done = UpToDate(asyncio.get_running_loop().time(), as_of)
        try:
            for _ in range(self._rounds):
                if await self._advance(drive_id):
                    break
            else:
                raise Overloaded("This board is being counted anew.")
        finally:
            del self._under_way[drive_id]
        self._done[drive_id] = done
        self._done.move_to_end(drive_id)
        while len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)
        return done
