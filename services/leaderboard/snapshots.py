"""Snapshots: each changed drive's totals are published at most 50 times a second.

They go straight to the bus and may be lost, because newer ones follow. A snapshot is read in one read
transaction, so its sequence is committed and readable before it is published. Each process publishes the
drives of the partitions that it reads.

Nothing here waits for another service. A snapshot has every figure and the donors' texts that are stored;
missing ones are requested, and the drive is republished once they arrive (`text_republishing.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Row, func, select

from backbone import ids
from backbone.adaptive_interval import AdaptiveInterval
from backbone.bus.protocol import BusUnavailable, EventBus, partition_of
from backbone.clock import Clock
from backbone.contracts import DriveState, SnapshotTaken
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.ids import DriveId
from backbone.messaging.lossy import publish_lossy
from backbone.telemetry import STAGE
from backbone.wakeups import wait_for, wake_on_stop
from services.leaderboard import minute_counts, totals
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.freshness import Assignment, ChangedDrives, Freshness
from services.leaderboard.heartbeats import Heartbeats
from services.leaderboard.revisions import raise_revisions
from services.leaderboard.rotation import Rotation
from services.leaderboard.tables import drives
from services.leaderboard.text_republishing import TextRepublishing
from services.leaderboard.totals import DriveFigures, SnapshotVersion

LOADED_INTERVAL_S: Final = 0.05
"""Between two snapshots of a drive while many drives change."""
MIN_INTERVAL_S: Final = 0.02
"""Between two snapshots of a drive otherwise."""
HEARTBEAT_S: Final = 1.0
REFRESH_INTERVAL_S: Final = 1.0
"""Between two deletions of figures that have left the last minute."""
REPUBLISH_INTERVAL_S: Final = 30.0
REPUBLISH_PARTS: Final = 120
"""Unchanged drives are republished one part after the other. A thousand at once would take 63 views, and a
changed drive would wait three seconds behind them."""
COUNT_INTERVAL_S: Final = 5.0
BUS_RETRY_S: Final = 0.5
SLOW_S: Final = 3.0
"""A process that takes longer from reading to publishing may have stalled while another one published."""
DRIVES_PER_VIEW: Final = 16
"""Drives read in one transaction: some 30 ms in which nothing else runs."""
REPUBLISHED_PER_VIEW: Final = 4
"""Of them, those that are read although changed ones wait."""

log = structlog.get_logger()
_TAKEN = Counter("ataa_leaderboard_snapshots_total", "Snapshots published.")
_FAILED = Counter("ataa_leaderboard_snapshot_failures_total", "Drives that could not be shown.")
_LIVE = Gauge("ataa_drives_live", "Drives that are live.")
_WAITED = STAGE.labels("published", "leaderboard")
_COST = Histogram("ataa_leaderboard_snapshot_round_seconds", "Time to read and publish a round of snapshots.")


class Snapshots:
    """Publishes the changed drives of this process's partitions."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        changed: ChangedDrives,
        freshness: Freshness,
        display_texts: DisplayTexts,
        clock: Clock,
    ) -> None:
        self._database = database
        self._bus = bus
        self._changed = changed
        self._freshness = freshness
        self._clock = clock
        self._assignments: dict[int, Assignment] = {}
        """The partitions whose drives this process publishes."""
        self._interval = AdaptiveInterval(LOADED_INTERVAL_S)
        self._published: dict[str, tuple[SnapshotVersion, float]] = {}
        self._republish_due: set[str] = set()
        """Drives to publish although nothing changed."""
        self._rotation = Rotation(REPUBLISH_PARTS)
        self.texts = TextRepublishing(database, display_texts, changed)
        self.heartbeats = Heartbeats(bus, changed, freshness)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`. Every drive of a partition that was taken over is published first."""
        tasks = [
            _PeriodicTask(HEARTBEAT_S, self.begin_heartbeat),
            _PeriodicTask(REFRESH_INTERVAL_S, self.refresh),
            _PeriodicTask(REPUBLISH_INTERVAL_S, self.begin_republishing, first_after_s=REPUBLISH_INTERVAL_S),
            _PeriodicTask(REPUBLISH_INTERVAL_S / REPUBLISH_PARTS, self.republish_part),
            _PeriodicTask(COUNT_INTERVAL_S, self._count_live),
        ]
        async with wake_on_stop(stop, self._changed.news):
            await self._run_tasks(tasks, stop)

    async def _run_tasks(self, tasks: Sequence[_PeriodicTask], stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.take_over()
            for task in tasks:
                await task.run_if_due()
            try:
                await self.texts.republish_due()
                await self.publish_due()
                await self.heartbeats.publish()
            except BusUnavailable as error:
                log.warning("snapshots.bus_unavailable", reason=str(error))
                await asyncio.sleep(BUS_RETRY_S)
            self._changed.news.clear()
            if not stop.is_set():
                await self._wait_until_due(min(self.texts.next_due(), *(task.due for task in tasks)))

    async def _wait_until_due(self, until: float) -> None:
        """Wait for a change, until a changed drive is due, or `until` (on the loop's clock)."""
        waiting = self._changed.now()
        now = asyncio.get_running_loop().time()
        if waiting:
            # A change of another drive may wait as long.
            await asyncio.sleep(min(until, *(self._due(drive_id) for drive_id in waiting)) - now)
        else:
            await wait_for(self._changed.news, until - now)

    async def take_over(self) -> None:
        """Publish for the partitions that this process owns now, and every drive of a new partition.

        Its previous owner may have committed changes that it did not publish, or may have published the
        current state without texts that were stored since. So `revision` rises: this snapshot is newer.
        """
        assignments = self._freshness.assignments()
        if assignments == self._assignments:
            return
        kept = {
            number: assignment
            for number, assignment in self._assignments.items()
            if assignments.get(number) == assignment
        }
        if new := assignments.keys() - kept.keys():
            found = await self._named(new, live_only=False)
            self._mark(found)
            await raise_revisions(self._database, self._changed, found)
        self._assignments = assignments
        self.texts.keep_only(self._owns)
        log.info("snapshots.partitions", owned_partitions=sorted(assignments))

    def _owns(self, drive_id: str) -> bool:
        return partition_of(drive_id) in self._assignments

    def _unmark_unowned(self) -> None:
        """Forget changes of drives that another process owns: it published them when it took over."""
        for drive_id in self._changed.now():
            if not self._owns(drive_id):
                self._changed.unmark(drive_id)
                self._republish_due.discard(drive_id)
                self.heartbeats.release([drive_id])

    def _due(self, drive_id: str) -> float:
        """When the drive may be published, on the loop's clock."""
        apart_s = LOADED_INTERVAL_S if self._interval.is_loaded() else MIN_INTERVAL_S
        own = self._published[drive_id][1] + apart_s if drive_id in self._published else 0.0
        return max(own, self._interval.due)

    async def publish_due(self) -> None:
        """Publish the changed drives that are due, at most `DRIVES_PER_VIEW`.

        Raises `BusUnavailable`; the drives then stay marked as changed.
        """
        self._unmark_unowned()
        now = asyncio.get_running_loop().time()
        due = self._first([drive_id for drive_id in self._changed.now() if self._due(drive_id) <= now])
        if not due:
            return
        since = {drive_id: self._changed.unmark(drive_id) or now for drive_id in due}
        try:
            with _COST.time():
                await self._publish_or_split(due)
        except BaseException:
            self._changed.mark(due)
            raise
        for changed_at in since.values():
            _WAITED.observe(asyncio.get_running_loop().time() - changed_at)
        self._interval.rest(now, len(due))
        self.heartbeats.release(due)

    def _first(self, due: Sequence[str]) -> list[str]:
        """The drives to publish first: changed ones, with some room for those to be republished."""
        changed = [drive_id for drive_id in due if drive_id not in self._republish_due]
        again = [drive_id for drive_id in due if drive_id in self._republish_due]
        room = DRIVES_PER_VIEW - min(len(again), REPUBLISHED_PER_VIEW)
        return [*changed[:room], *again][:DRIVES_PER_VIEW]

    async def _publish_or_split(self, due: Sequence[str]) -> None:
        """Publish these; a drive that fails is logged and skipped, and does not stop the others."""
        try:
            await self._publish(due)
        except BusUnavailable:
            raise
        except Exception as error:
            if is_transient(error):
                raise
            if len(due) == 1:
                log.exception("snapshots.cannot_be_taken", drive=due[0])
                _FAILED.inc()
                return
            for drive_id in due:
                await self._publish_or_split([drive_id])

    async def _publish(self, due: Sequence[str]) -> None:
        began = asyncio.get_running_loop().time()
        marks = self._freshness.all()  # before the read, which is then at least this fresh
        figures_of_due = await self._read(due)
        events = [
            self._snapshot(figures, self.texts.request_missing(figures), marks) for figures in figures_of_due
        ]
        if events:
            await publish_lossy(self._bus, events)
        now = asyncio.get_running_loop().time()
        for figures in figures_of_due:
            self._published[figures.drive_id] = (figures.snapshot_version, now)
            self._republish_due.discard(figures.drive_id)
        _TAKEN.inc(len(events))
        if now - began > SLOW_S:
            await self._publish(due)  # what is newer by now, so that the last snapshot is not an old one

    async def _read(self, due: Sequence[str]) -> list[DriveFigures]:
        """Read the figures of the named drives whose current state is not published yet."""
        now = self._clock.now()
        async with self._database.reading() as session:
            # One synchronous call: each pass through the async facade costs as much as a query.
            return await session.run_sync(lambda inner: totals.read_figures(inner, due, self._is_wanted, now))

    def _is_wanted(self, row: Row[Any]) -> bool:
        known = self._published.get(row.drive_id)
        return row.drive_id in self._republish_due or known is None or totals.snapshot_version(row) > known[0]

    def _snapshot(
        self, figures: DriveFigures, hidden: Collection[str], marks: Mapping[int, datetime]
    ) -> SnapshotTaken:
        epoch, sequence, revision = figures.snapshot_version
        # Watermarks may be older than a new drive, whose figures are complete as of its creation: the gateway
        # shows that moment before the first snapshot, and `as_of` must not go back.
        created_at = ids.created_at(figures.drive_id)
        as_of = max(marks.get(partition_of(figures.drive_id), created_at), created_at)
        return SnapshotTaken.of_valid(
            drive_id=DriveId(figures.drive_id),
            slug=figures.row.slug,
            epoch=epoch,
            sequence=sequence,
            revision=revision,
            as_of=as_of,
            totals=figures.totals(hidden),
        )

    async def refresh(self) -> None:
        """Delete this process's figures that have left the last minute."""
        await minute_counts.delete_expired(self._database, self._changed, self._owns, self._clock.now())

    async def begin_republishing(self) -> None:
        """Have each live drive published once more within `REPUBLISH_INTERVAL_S`."""
        self._rotation.begin(await self._named(self._assignments.keys(), live_only=True))

    async def republish_part(self) -> None:
        """Mark the drives whose turn it is."""
        if part := self._rotation.next_part():
            self._mark(part)

    async def _count_live(self) -> None:
        live = select(func.count()).select_from(drives).where(drives.c.state == DriveState.LIVE)
        async with self._database.reading() as session:
            _LIVE.set((await session.execute(live)).scalar_one())

    def _mark(self, drive_ids: Collection[str]) -> None:
        """Mark drives for publication, changed or not."""
        self._republish_due.update(drive_ids)
        self._changed.mark(drive_ids)

    async def _named(self, partitions: Collection[int], *, live_only: bool) -> set[str]:
        """Every named drive of these partitions."""
        chosen = select(drives.c.drive_id).where(drives.c.version > 0)
        if live_only:
            chosen = chosen.where(drives.c.state == DriveState.LIVE)
        async with self._database.reading() as session:
            every = [row.drive_id for row in await session.execute(chosen)]
        return {drive_id for drive_id in every if partition_of(drive_id) in partitions}

    async def begin_heartbeat(self) -> None:
        """Read the watermarks to publish next."""
        self.heartbeats.begin(self._assignments)


class _PeriodicTask:
    """Work to repeat at an interval."""

    def __init__(self, every_s: float, act: Callable[[], Any], first_after_s: float = 0.0) -> None:
        self._every_s = every_s
        self._act = act
        self.due = asyncio.get_running_loop().time() + first_after_s

    async def run_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.due:
            self.due = now + self._every_s
            await self._act()
