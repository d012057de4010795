"""Snapshots and heartbeats: what each drive shows, at most 50 times a second, and how fresh it is.

They go straight to the bus and may be lost: they are taken anew. A snapshot is read in one view of
the database, so its sequence is committed and readable before it is published. Of several processes
each speaks for the drives of the partitions it reads.

Nothing here waits for another service. A snapshot has every figure and the donors' texts that are kept;
those it lacks are requested, and once they are there the drive's `revision` rises and it is published again.
Until then, but not for long, `recent` leaves the gift out: overlays announce a gift once, with the name it
is first shown under.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Row, Update, delete, func, select, update

from backbone import ids
from backbone.adaptive_interval import AdaptiveInterval
from backbone.bus.protocol import (
    BusUnavailable,
    EventBus,
    Message,
    key_of_partition,
    partition_of,
)
from backbone.clock import Clock
from backbone.contracts import DriveState, Event, Heartbeat, SnapshotTaken
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.database.session_info import after_commit
from backbone.database.transient import is_transient
from backbone.ids import DriveId
from backbone.telemetry import STAGE
from services.leaderboard import totals
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.freshness import Assignment, ChangedDrives, Freshness
from services.leaderboard.tables import drives, second_counts
from services.leaderboard.totals import DriveFigures, SnapshotVersion

LOADED_INTERVAL_S: Final = 0.05
"""Between two snapshots of a drive while many drives change."""
MIN_INTERVAL_S: Final = 0.02
"""Between two snapshots of a drive otherwise."""
HEARTBEAT_S: Final = 1.0
REFRESH_INTERVAL_S: Final = 1.0
"""How often figures of the last minute are let fall while nothing new comes."""
REPUBLISH_INTERVAL_S: Final = 30.0
COUNT_INTERVAL_S: Final = 5.0
TEXTS_INTERVAL_S: Final = 0.25
"""Between two rounds in which drives are published again for donors' texts that have arrived."""
SLOW_S: Final = 3.0
"""A process that took so long from reading to publishing may have been asleep, and others published since."""
DRIVES_PER_VIEW: Final = 16
"""Drives read in one view: some 30 ms in which nothing else runs."""
TEXTS_GRACE_S: Final = 2.0
"""How long a gift without its texts is left out of `recent` before it is shown as anonymous."""
DRIVES_PER_STATEMENT: Final = 1_000
"""Drives named in one statement."""

log = structlog.get_logger()
_TAKEN = Counter("ataa_leaderboard_snapshots_total", "Snapshots published.")
_FAILED = Counter("ataa_leaderboard_snapshot_failures_total", "Drives that could not be shown.")
_LIVE = Gauge("ataa_drives_live", "Drives that are live.")
_WAITED = STAGE.labels("published", "leaderboard")
_COST = Histogram("ataa_leaderboard_snapshot_round_seconds", "Time to read and publish a round of snapshots.")


class Snapshots:
    """Publishes what changed; see the module."""

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
        self._display_texts = display_texts
        self._clock = clock
        self._assignments: dict[int, Assignment] = {}
        """The partitions this process speaks for."""
        self._interval = AdaptiveInterval(LOADED_INTERVAL_S)
        self._published: dict[str, tuple[SnapshotVersion, float]] = {}
        self._republish_due: set[str] = set()
        """To be published although nothing changed."""
        self._missing_texts: dict[str, dict[str, float]] = {}
        """The pledges whose texts each drive's newest snapshot lacks, with until when each is left out."""
        self._hidden: dict[str, float] = {}
        """Drives whose newest snapshot leaves gifts out, with until when."""
        self._texts_due: dict[str, None] = {}
        """Drives whose newest snapshot lacks texts that are there by now."""
        self._texts_published_at = 0.0
        display_texts.on_stored = self._note_texts
        self._heartbeat: dict[int, datetime] = {}
        self._due_before_heartbeat: set[str] = set()
        """Drives whose snapshot must be out before `_heartbeat` is said."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`; of a partition taken over first every drive there is."""
        tasks = [
            _PeriodicTask(HEARTBEAT_S, self.begin_heartbeat),
            _PeriodicTask(REFRESH_INTERVAL_S, self.refresh),
            _PeriodicTask(REPUBLISH_INTERVAL_S, self._republish, first_after_s=REPUBLISH_INTERVAL_S),
            _PeriodicTask(COUNT_INTERVAL_S, self._count_live),
        ]
        waking = asyncio.create_task(self._wake_at_stop(stop))
        try:
            await self._run_tasks(tasks, stop)
        finally:
            waking.cancel()

    async def _run_tasks(self, tasks: Sequence[_PeriodicTask], stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.take_over()
            for task in tasks:
                await task.run_if_due()
            try:
                await self.republish_for_texts()
                await self.publish_due()
                await self.publish_heartbeat()
            except BusUnavailable as error:
                log.warning("snapshots.bus_unavailable", reason=str(error))
                await asyncio.sleep(0.5)
            self._changed.news.clear()
            if not stop.is_set():
                due = [self._texts_published_at + TEXTS_INTERVAL_S] if self._texts_due else []
                await self._wait_until_due(min((*due, *self._hidden.values(), *(task.due for task in tasks))))

    async def _wake_at_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._changed.news.set()

    async def _wait_until_due(self, until: float) -> None:
        """Wait for a change, for a changed drive's turn, or for `until` (on the loop's clock)."""
        waiting = self._changed.now()
        now = asyncio.get_running_loop().time()
        if waiting:
            # A change of another drive can wait that long too.
            await asyncio.sleep(min(until, *(self._due(drive_id) for drive_id in waiting)) - now)
            return
        try:
            async with asyncio.timeout_at(until):
                await self._changed.news.wait()
        except TimeoutError:
            return

    async def take_over(self) -> None:
        """Speak for the partitions that are this process's now; every drive of a new one is published.

        Whoever had it before may have counted what it did not publish, or published the present state
        without texts that have come since: `revision` rises, so that this one is newer.
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
            await self._raise_revisions(await self._mark_all(new, live_only=False))
        self._assignments = assignments
        self._missing_texts = {
            one: missing for one, missing in self._missing_texts.items() if self._owns(one)
        }
        self._hidden = {one: until for one, until in self._hidden.items() if self._owns(one)}
        self._texts_due = dict.fromkeys(filter(self._owns, self._texts_due))
        log.info("snapshots.partitions", owned_partitions=sorted(assignments))

    def _owns(self, drive_id: str) -> bool:
        return partition_of(drive_id) in self._assignments

    def _unmark_unowned(self) -> None:
        """Forget changes of drives that another process speaks for; it found them when it took over."""
        for drive_id in self._changed.now():
            if not self._owns(drive_id):
                self._changed.unmark(drive_id)
                self._republish_due.discard(drive_id)
                self._due_before_heartbeat.discard(drive_id)

    def _due(self, drive_id: str) -> float:
        """When the drive may be published, on the loop's clock."""
        apart_s = LOADED_INTERVAL_S if self._interval.is_loaded() else MIN_INTERVAL_S
        own = self._published[drive_id][1] + apart_s if drive_id in self._published else 0.0
        return max(own, self._interval.due)

    async def publish_due(self) -> None:
        """Publish the changed drives whose turn it is.

        Raises `BusUnavailable`; those drives then stay marked.
        """
        self._unmark_unowned()
        now = asyncio.get_running_loop().time()
        due = [drive_id for drive_id in self._changed.now() if self._due(drive_id) <= now][:DRIVES_PER_VIEW]
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
        self._due_before_heartbeat.difference_update(due)

    async def _publish_or_split(self, due: Sequence[str]) -> None:
        """Publish these; a drive that cannot be shown is set aside and does not stop the others."""
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
        marks = self._freshness.all()  # before the view: what is in it is at least this fresh
        figures_of_due = await self._read(due)
        events = [
            self._snapshot(figures, self._note_missing_texts(figures), marks) for figures in figures_of_due
        ]
        if events:
            await self._bus.publish([_message(event) for event in events], lossy=True)
        now = asyncio.get_running_loop().time()
        for figures in figures_of_due:
            self._published[figures.drive_id] = (figures.snapshot_version, now)
            self._republish_due.discard(figures.drive_id)
        _TAKEN.inc(len(events))
        if now - began > SLOW_S:
            await self._publish(due)  # only what is newer by now, so that an old state is not the last said

    async def _read(self, due: Sequence[str]) -> list[DriveFigures]:
        """What those show that are named and not yet published as they are."""
        now = self._clock.now()
        async with self._database.reading() as session:
            # As one plain call: the way through the async facade costs as much again as a query.
            return await session.run_sync(
                lambda inner: totals.read_figures(inner.connection(), due, self._is_wanted, now)
            )

    def _is_wanted(self, row: Row[Any]) -> bool:
        known = self._published.get(row.drive_id)
        return row.drive_id in self._republish_due or known is None or totals.snapshot_version(row) > known[0]

    def _snapshot(
        self, figures: DriveFigures, hidden: Collection[str], marks: Mapping[int, datetime]
    ) -> SnapshotTaken:
        epoch, sequence, revision = figures.snapshot_version
        # Nothing is older than its drive. Watermarks of a young drive may still be: the figures of a drive
        # nobody has counted for yet are shown as of its creation, and what follows must not claim less.
        created_at = ids.created_at(figures.drive_id)
        as_of = max(marks.get(partition_of(figures.drive_id), created_at), created_at)
        return SnapshotTaken.model_construct(
            drive_id=DriveId(figures.drive_id),
            slug=figures.row.slug,
            epoch=epoch,
            sequence=sequence,
            revision=revision,
            as_of=as_of,
            totals=figures.totals(hidden),
        )

    # What comes by itself.

    async def refresh(self) -> None:
        """Let the figures of the last minute fall.

        That is not in the log, so it raises `revision`, in the transaction that makes it true: a
        restarted process finds what it must still let fall.
        """
        oldest = microseconds(self._clock.now()) // 1_000_000 - totals.MINUTE_S
        async with self._database.reading() as session:
            expired = select(second_counts.c.drive_id).where(second_counts.c.second <= oldest).distinct()
            stale = {row.drive_id for row in await session.execute(expired) if self._owns(row.drive_id)}
        if not stale:
            return
        async with self._database.transaction() as session:
            await session.execute(
                delete(second_counts).where(
                    second_counts.c.drive_id.in_(stale), second_counts.c.second <= oldest
                )
            )
            await session.execute(_revision_bump(stale))
            after_commit(session, lambda: self._changed.mark(stale))

    def _note_missing_texts(self, figures: DriveFigures) -> Collection[str]:
        """Request the texts a snapshot about to be published lacks; any that come from now on are noted.

        Answers with the pledges that it leaves out.
        """
        drive_id, now = figures.drive_id, asyncio.get_running_loop().time()
        before = self._missing_texts.pop(drive_id, {})
        self._hidden.pop(drive_id, None)
        self._texts_due.pop(drive_id, None)
        missing = {one: before.get(one, now + TEXTS_GRACE_S) for one in figures.without_texts}
        if not missing:
            return ()
        self._missing_texts[drive_id] = missing
        self._display_texts.request(missing)
        hidden = {one: until for one, until in missing.items() if now < until}
        if hidden:
            self._hidden[drive_id] = min(hidden.values())
        return hidden

    def _note_texts(self, pledge_ids: Collection[str]) -> None:
        """Texts are there: the drives whose snapshots lack them are to be published again."""
        there = set(pledge_ids)
        due = [drive_id for drive_id, missing in self._missing_texts.items() if not there.isdisjoint(missing)]
        if due:
            self._texts_due |= dict.fromkeys(due)
            self._changed.news.set()

    async def republish_for_texts(self) -> None:
        """Publish again the drives that lacked texts which came, or for too long; at most each
        `TEXTS_INTERVAL_S`.

        Texts are not in the log either: `revision` rises.
        """
        now = asyncio.get_running_loop().time()
        for drive_id in [one for one, until in self._hidden.items() if until <= now]:
            del self._hidden[drive_id]
            self._texts_due[drive_id] = None
        if not self._texts_due or now < self._texts_published_at + TEXTS_INTERVAL_S:
            return
        due, self._texts_due, self._texts_published_at = self._texts_due, {}, now
        try:
            await self._raise_revisions(due)
        except BaseException:
            self._texts_due |= due
            raise

    async def _raise_revisions(self, drive_ids: Collection[str]) -> None:
        """Make the present state of these drives a newer one than any that was published."""
        wanted = sorted(drive_ids)
        for start in range(0, len(wanted), DRIVES_PER_STATEMENT):
            some = wanted[start : start + DRIVES_PER_STATEMENT]
            async with self._database.transaction() as session:
                await session.execute(_revision_bump(some))
        self._changed.mark(wanted)

    async def _republish(self) -> None:
        await self._mark_all(self._assignments.keys(), live_only=True)

    async def _count_live(self) -> None:
        live = select(func.count()).select_from(drives).where(drives.c.state == DriveState.LIVE)
        async with self._database.reading() as session:
            _LIVE.set((await session.execute(live)).scalar_one())

    async def _mark_all(self, partitions: Collection[int], *, live_only: bool) -> set[str]:
        """Have every named drive of these partitions published, whether it changed or not; which they are."""
        chosen = select(drives.c.drive_id).where(drives.c.version > 0)
        if live_only:
            chosen = chosen.where(drives.c.state == DriveState.LIVE)
        async with self._database.reading() as session:
            every = [row.drive_id for row in await session.execute(chosen)]
        found = {drive_id for drive_id in every if partition_of(drive_id) in partitions}
        self._republish_due |= found
        self._changed.mark(found)
        return found

    async def begin_heartbeat(self) -> None:
        """Take the watermarks; they are said once all that is older is in published snapshots."""
        if not self._due_before_heartbeat:
            assignments, marks = self._freshness.assignments(), self._freshness.all()
            self._heartbeat = {
                n: mark for n, mark in marks.items() if self._assignments.get(n) == assignments[n]
            }
            self._due_before_heartbeat = set(self._changed.now())

    async def publish_heartbeat(self) -> None:
        """Say the watermarks taken, unless a snapshot is still due that they cover.

        Raises `BusUnavailable`; they are then said later.
        """
        if self._due_before_heartbeat or not self._heartbeat:
            return
        heartbeats = [
            Heartbeat.model_construct(slot=key_of_partition(number), partition=number, as_of=as_of)
            for number, as_of in self._heartbeat.items()
        ]
        await self._bus.publish([_message(heartbeat) for heartbeat in heartbeats], lossy=True)
        self._heartbeat = {}


def _revision_bump(drive_ids: Collection[str]) -> Update:
    """Raises these drives' `revision`, locking them in the order in which everything else does."""
    wanted = select(drives.c.drive_id).where(drives.c.drive_id.in_(drive_ids)).order_by(drives.c.drive_id)
    in_order = drives.c.drive_id.in_(wanted.with_for_update())
    return update(drives).where(in_order).values(revision=drives.c.revision + 1)


class _PeriodicTask:
    """Something done every so often."""

    def __init__(self, every_s: float, act: Callable[[], Any], first_after_s: float = 0.0) -> None:
        self._every_s = every_s
        self._act = act
        self.due = asyncio.get_running_loop().time() + first_after_s

    async def run_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.due:
            self.due = now + self._every_s
            await self._act()


def _message(event: Event) -> Message:
    return Message(event.topic, event.key, ids.new("evt"), event.wire_name, event.to_bytes())
