"""The drives that the gateway shows, held in memory and kept current from the bus.

No read of totals accesses a database: the hub follows all of `snapshots` and the tail of `drive-log`, and
reads are answered from what it has received (docs/architecture.md, "Live reads").
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, get_args

import structlog
from prometheus_client import Gauge
from pydantic import ValidationError

from backbone.bus.protocol import EventBus, Partition, Record, Subscription
from backbone.clock import Clock
from backbone.contracts import DriveLogged, Heartbeat, SnapshotTaken, decode
from backbone.http.service_client import ServiceClient
from backbone.telemetry import FRESHNESS, STAGE
from backbone.wakeups import wait_for
from gateway.live.connection import MAX_ROWS, Row, event_frame, newest
from gateway.live.display_texts import DisplayTexts
from gateway.live.fan_out import FanOut
from gateway.live.freshness import Freshness
from gateway.live.lookups import Lookups, empty_totals
from gateway.live.milestones import Milestones
from gateway.live.replay import Replays
from gateway.live.view import DriveView, State
from gateway.overload.ladder import Step

PLACEHOLDER_S: Final = 5.0
"""How long a drive without a snapshot is shown as pledges described it, before it is looked up again."""
FETCH_S: Final = 0.2
"""How long a read of the bus waits, and so the longest delay of a stop."""
BOOTSTRAP_FETCH_S: Final = 0.02
MAX_RECORDS: Final = 1000
"""Records of one read."""
SLOWED_S: Final = 1.0
"""Between two reads of snapshots while their rate gives way under overload; of those read
together only the newest of each drive is taken."""

log = structlog.get_logger()

_SHOWN: Final = FRESHNESS.labels("shown")
_RECEIVED: Final = STAGE.labels("received", "gateway")
_LAG: Final = Gauge("ataa_live_lag_seconds", "How far the figures of the drive furthest behind are behind.")
_STATES: Final = Gauge("ataa_live_drives", "Drives shown, by how fresh their figures are.", ["state"])


class Hub:
    """The views of all drives, fed by the bus; `bootstrapped` once `snapshots` was read to its end."""

    def __init__(
        self,
        bus: EventBus,
        pledges: ServiceClient,
        leaderboard: ServiceClient,
        secret: str,
        caller_headers: Mapping[str, str],
        clock: Clock,
        sends_per_s: float,
    ) -> None:
        self.bootstrapped = False
        self.streaming = asyncio.Event()
        """Set once snapshots were read to their end and rows of the log are received: streams may begin."""
        self._views: dict[str, DriveView] = {}
        self._by_slug: dict[str, DriveView] = {}
        self.freshness = Freshness(clock)
        self.fan_out = FanOut(self.freshness, self._views.values, sends_per_s)
        self.lookups = Lookups(pledges, secret, self.known, self._hold_placeholder)
        self._display_texts = DisplayTexts(leaderboard, secret)
        self._milestones = Milestones(pledges, secret)
        self.replays = Replays(leaderboard, caller_headers, self._to_frames)
        self._log_is_followed = False
        self._log_read_to: dict[Partition, int] = {}
        self._bus = bus
        self._clock = clock
        _LAG.set_function(self._worst_lag_s)
        for state in get_args(State):
            _STATES.labels(state).set_function(partial(self._in_state, state))

    def known(self, ref: str) -> DriveView | None:
        """The view of the drive with this id or slug, if one is held."""
        return self._views.get(ref) or self._by_slug.get(ref)

    def newest(self, at_most: int) -> list[DriveView]:
        """The drives of which a snapshot was received, those created last first."""
        known = (view for view in self._views.values() if not view.is_placeholder)
        return heapq.nlargest(at_most, known, key=lambda view: view.drive_id)

    def known_as_of(self, ref: str) -> datetime | None:
        """`Freshness.as_of` of the drive with this id or slug; None where no snapshot of it was received."""
        view = self.known(ref)
        return None if view is None or view.is_placeholder else self.freshness.as_of(view)

    async def follow_snapshots(self, stop: asyncio.Event) -> None:
        """Receive every snapshot and heartbeat until `stop`."""
        subscription = await self._bus.follow(["snapshots"], "beginning")
        try:
            while not stop.is_set():
                timeout_s = FETCH_S if self.bootstrapped else BOOTSTRAP_FETCH_S
                records = await subscription.fetch(MAX_RECORDS, timeout_s)
                slowed = self.bootstrapped and self.freshness.step >= Step.SNAPSHOTS
                self.receive_snapshots(records)
                if not self.bootstrapped and _at_end(subscription):
                    self.bootstrapped = True
                    log.info("live.bootstrapped", drives=len(self._views))
                    self._begin_streaming()
                if slowed and len(records) < MAX_RECORDS:
                    await wait_for(stop, SLOWED_S)
        finally:
            await subscription.close()

    def _begin_streaming(self) -> None:
        if self.bootstrapped and self._log_is_followed:
            self.streaming.set()

    def receive_snapshots(self, records: Sequence[Record]) -> None:
        """Hold what is newer than what is held: of each drive the newest of these snapshots."""
        newest: dict[str, tuple[SnapshotTaken, datetime]] = {}
        for record in records:
            match _decoded(record):
                case SnapshotTaken() as snapshot:
                    if self.bootstrapped:
                        _RECEIVED.observe(max(0.0, self._clock.now().timestamp() - record.published_at))
                    received = snapshot, snapshot.as_of
                    held = newest.get(snapshot.drive_id)
                    newest[snapshot.drive_id] = received if held is None else _newer(held, received)
                case Heartbeat() as heartbeat:
                    self.freshness.receive(heartbeat, bootstrapped=self.bootstrapped)
        for snapshot, as_of in newest.values():
            self._take(snapshot, as_of)

    def _take(self, snapshot: SnapshotTaken, as_of: datetime) -> None:
        view = self._views.get(snapshot.drive_id) or DriveView(snapshot.drive_id, snapshot.slug)
        snapshot_version = _version(snapshot)
        if not view.is_placeholder and snapshot_version <= view.snapshot_version:
            if snapshot_version == view.snapshot_version and (view.as_of is None or as_of > view.as_of):
                view.as_of = as_of  # republished
            return
        if view.as_of is not None and snapshot_version[0] == view.snapshot_version[0]:
            # A partition's new owner may report an earlier moment; what was complete by a moment stays so.
            as_of = max(as_of, view.as_of)
        view.is_placeholder = False
        self._hold(view, snapshot.slug)
        view.take(snapshot_version, as_of, snapshot.totals)
        self._note_shown(view)
        self.fan_out.push_totals(view)

    def _hold(self, view: DriveView, slug: str) -> None:
        if view.slug != slug:
            self._by_slug.pop(view.slug, None)
            view.slug = slug
        self._views[view.drive_id] = self._by_slug[slug] = view

    def _hold_placeholder(self, drive: Mapping[str, Any]) -> DriveView:
        """The view of a drive as pledges shows it; with zeros where no snapshot of it was received."""
        view = self._views.get(drive["id"]) or DriveView(drive["id"], drive["slug"])
        if view.is_placeholder:
            view.placeholder_until = asyncio.get_running_loop().time() + PLACEHOLDER_S
            self._hold(view, drive["slug"])
            view.take((1, 0, 0), None, empty_totals(drive))
        return view

    async def follow_log(self, stop: asyncio.Event) -> None:
        """Receive the rows appended to the drives' logs from now on, until `stop`.

        Called again after a failure, it reads on after the last row that was read of each partition.
        """
        subscription = await self._bus.follow(["drive-log"], "end")
        try:
            if self._log_read_to:
                await subscription.seek(self._log_read_to)
            self._log_is_followed = True
            self._begin_streaming()
            while not stop.is_set():
                records = await subscription.fetch(1000, FETCH_S)
                self._log_read_to |= {record.partition: record.offset + 1 for record in records}
                await self.receive_log(records)
        finally:
            await subscription.close()

    async def receive_log(self, records: Sequence[Record]) -> None:
        """Push donations, with their display texts, and milestones to the clients of their drives."""
        rows: defaultdict[str, list[DriveLogged]] = defaultdict(list)
        for record in records:
            event = _decoded(record)
            if isinstance(event, DriveLogged):
                rows[event.drive_id].append(event)
        watched = {
            view: events[-MAX_ROWS - 1 :]
            for drive_id, events in rows.items()
            if (view := self._views.get(drive_id)) is not None and view.connections
        }
        frames = await self._frames_of(
            {view: [row.as_row() for row in events] for view, events in watched.items()}
        )
        for drive_id, events in rows.items():
            if (view := self._views.get(drive_id)) is not None:
                view.tail = max(view.tail, events[-1].sequence)
                gifts = (event for event in events if event.type == "donation.counted")
                view.unshown += ((gift.epoch, gift.sequence, gift.at) for gift in gifts)
                self._note_shown(view)
                if view not in watched:
                    self.replays.forget(view)
        for view, events in watched.items():
            skipped = rows[view.drive_id][: -len(events)]
            received = [Row(row.epoch, row.sequence, row.sequence, b"") for row in skipped]
            received += [
                Row(row.epoch, row.sequence, row.sequence, shown)
                for row, shown in zip(events, frames[view], strict=True)
            ]
            self._add_to_replays(view, received, complete=not skipped)
            view.rows = newest([*view.rows, *received], view.drive_id)
            self.fan_out.push_rows(view)

    async def _frames_of(
        self, rows: Mapping[DriveView, Sequence[Mapping[str, Any]]]
    ) -> Mapping[DriveView, list[bytes]]:
        """The frames of rows of several drives, with one request for all their donors' texts."""
        texts = await self._display_texts.of([row for some in rows.values() for row in some])
        milestones = {view: await self._milestones.of(view, some) for view, some in rows.items()}
        return {
            view: [event_frame(row, texts, milestones[view]) for row in some] for view, some in rows.items()
        }

    async def _to_frames(self, view: DriveView, rows: Sequence[Mapping[str, Any]]) -> Sequence[bytes]:
        return (await self._frames_of({view: rows}))[view]

    def _add_to_replays(self, view: DriveView, received: Sequence[Row], *, complete: bool) -> None:
        """Add rows to those that resuming clients get; not if some of them have no frame."""
        if complete:
            self.replays.add(view, received)
        else:
            self.replays.forget(view)

    def _note_shown(self, view: DriveView) -> None:
        """Measure the gifts that the figures now cover; rows and figures arrive in either order."""
        now, waiting = self._clock.now(), view.unshown
        while waiting and waiting[0][:2] <= view.snapshot_version[:2]:
            _SHOWN.observe(max(0.0, (now - waiting.popleft()[2]).total_seconds()))

    def _worst_lag_s(self) -> float:
        now = self._clock.now()
        return max((self.freshness.lag_s(view, now) for view in self._with_snapshot()), default=0.0)

    def _in_state(self, state: State) -> int:
        return sum(self.freshness.state(view) == state for view in self._with_snapshot())

    def _with_snapshot(self) -> list[DriveView]:
        return [view for view in self._views.values() if not view.is_placeholder]


def _version(snapshot: SnapshotTaken) -> tuple[int, int, int]:
    return snapshot.epoch, snapshot.sequence, snapshot.revision


def _newer(
    one: tuple[SnapshotTaken, datetime], other: tuple[SnapshotTaken, datetime]
) -> tuple[SnapshotTaken, datetime]:
    """The newer of two snapshots of a drive, with the later moment that one of the same epoch stated."""
    older, newer = (one, other) if _version(one[0]) <= _version(other[0]) else (other, one)
    return newer if older[0].epoch != newer[0].epoch else (newer[0], max(older[1], newer[1]))


def _decoded(record: Record) -> object:
    """The event of a record; None, with a log entry, where its bytes do not fit its name."""
    if not record.name:
        return None
    try:
        return decode(record.name, record.value)
    except ValidationError as error:
        log.error("live.unreadable", name=record.name, id=record.id, errors=error.error_count())
        return None


def _at_end(subscription: Subscription) -> bool:
    assigned, lag = subscription.assignment(), subscription.lag()
    return bool(assigned) and all(lag.get(partition, 1) <= 0 for partition in assigned)
