"""What every drive shows, held in memory: the newest bytes, and the clients that watch.

No read of totals touches a database: the hub follows all of `snapshots` and the tail of `drive-log`
and answers from what it has heard (docs/architecture.md, "Live reads").
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, get_args

import structlog
from prometheus_client import Gauge
from pydantic import ValidationError

from backbone.bus.protocol import EventBus, Record, Subscription
from backbone.clock import Clock
from backbone.contracts import DriveLogged, Heartbeat, SnapshotTaken, decode
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.ids import created_at
from backbone.money import as_json
from backbone.telemetry import FRESHNESS, STAGE
from backbone.wakeups import wait_for
from gateway.live.connection import MAX_ROWS, Batch, Row, SseConnection, event_frame, newest
from gateway.live.view import DriveView, State

CATCHING_UP_AFTER_S: Final = 3.0
FROZEN_AFTER_S: Final = 5.0
UNCROWDED_INTERVAL_S: Final = 0.02
"""Between two pushes of rows, or of totals, of a drive with few clients."""
MIN_PUSH_INTERVAL_S: Final = 0.05
MAX_PUSH_INTERVAL_S: Final = 1.0
"""Between two pushes of a drive whose clients are so many that rows and totals share each push."""
CONNECTIONS_PER_TURN: Final = 200
"""Clients handed a push in one turn of the loop (3 ms)."""
REFRESH_S: Final = 5.0
"""A quiet drive's clients get its figures anew this often, for their `as_of`."""
PLACEHOLDER_S: Final = 5.0
"""How long what pledges said of a drive without a snapshot is believed."""
UNKNOWN_S: Final = 1.0
MOST_UNKNOWN: Final = 10_000
DISPLAY_TEXTS_TIMEOUT_S: Final = 1.0
FETCH_S: Final = 0.2
"""How long a read of the bus waits: a stop is seen this much later at most."""

log = structlog.get_logger()


_SHOWN: Final = FRESHNESS.labels("shown")
_RECEIVED: Final = STAGE.labels("received", "gateway")
_PUSHED: Final = STAGE.labels("pushed", "gateway")
_LAG: Final = Gauge("ataa_live_lag_seconds", "How far the figures of the drive furthest behind are behind.")
_STATES: Final = Gauge("ataa_live_drives", "Drives shown, by how fresh their figures are.", ["state"])


class Hub:
    """All drives' views, fed by the bus; `bootstrapped` once `snapshots` was read to its end."""

    def __init__(
        self,
        bus: EventBus,
        pledges: ServiceClient,
        leaderboard: ServiceClient,
        secret: str,
        clock: Clock,
        sends_per_s: float,
    ) -> None:
        self.clock = clock
        self.bootstrapped = False
        self.clients = 0
        self._bus = bus
        self._pledges = pledges
        self._leaderboard = leaderboard
        self._secret = secret
        self._sends_per_s = sends_per_s
        self._views: dict[str, DriveView] = {}
        self._by_slug: dict[str, DriveView] = {}
        self._heartbeats: dict[int, datetime] = {}
        self._received_at: dict[int, datetime] = {}
        self._began = clock.now()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lookups: dict[str, asyncio.Future[Mapping[str, DriveView]]] = {}
        _LAG.set_function(self._worst_lag_s)
        for state in get_args(State):
            _STATES.labels(state).set_function(partial(self._in_state, state))

    # What readers ask.

    def known(self, ref: str) -> DriveView | None:
        """The drive of this id or slug, if a snapshot of it was heard."""
        return self._views.get(ref) or self._by_slug.get(ref)

    def needs_lookup(self, refs: Iterable[str]) -> bool:
        """Whether pledges has to be asked to find these."""
        return any(self._needs_lookup(ref) for ref in refs)

    def _needs_lookup(self, ref: str) -> bool:
        view, now = self.known(ref), asyncio.get_running_loop().time()
        if view is None:
            return now >= self._unknown.get(ref, 0.0)
        return view.is_placeholder and now >= view.placeholder_until

    async def find(self, refs: Iterable[str]) -> list[DriveView | None]:
        """The same of several, or drives that pledges knows and nobody has counted for yet; None is unknown.

        Pledges is asked once for all of them. Raises `ServiceUnavailable` where it has to be and does not
        answer.
        """
        wanted = list(refs)
        if new := [ref for ref in wanted if ref not in self._lookups and self._needs_lookup(ref)]:
            self._lookups |= dict.fromkeys(new, asyncio.ensure_future(self._look_up(new)))
        # Taken together now: each leaves `_lookups` as soon as it is answered.
        lookups = {ref: self._lookups[ref] for ref in wanted if ref in self._lookups}
        return [await self._found(ref, lookups.get(ref)) for ref in wanted]

    async def _found(
        self, ref: str, lookups: asyncio.Future[Mapping[str, DriveView]] | None
    ) -> DriveView | None:
        if lookups is None:
            return self.known(ref)
        try:
            return (await asyncio.shield(lookups)).get(ref)
        except ServiceUnavailable:
            if (view := self.known(ref)) is None:
                raise
            return view

    def as_of(self, view: DriveView) -> datetime:
        """Everything before this moment is in the drive's figures.

        Of a drive of which no snapshot was heard nothing is known but that no gift is older than it.
        """
        if view.as_of is None:
            return created_at(view.drive_id)
        return max(view.as_of, self._heartbeats.get(view.partition, view.as_of))

    def known_as_of(self, ref: str) -> datetime | None:
        """The same for the drive of this id or slug; None where no snapshot of it was heard."""
        view = self.known(ref)
        return None if view is None or view.is_placeholder else self.as_of(view)

    def state(self, view: DriveView) -> State:
        """How fresh the drive's figures are at this moment."""
        now = self.clock.now()
        received = self._received_at.get(view.partition, self._began)
        if (now - received).total_seconds() > FROZEN_AFTER_S:
            return "frozen"
        lag = (now - self.as_of(view)).total_seconds()
        # Zeros that nobody counted are not live, however young the drive is.
        return "catching_up" if view.is_placeholder or lag > CATCHING_UP_AFTER_S else "live"

    # What the bus says.

    async def follow_snapshots(self, stop: asyncio.Event) -> None:
        """Take in every snapshot and heartbeat until `stop`."""
        subscription = await self._bus.follow(["snapshots"], "beginning")
        try:
            while not stop.is_set():
                self.receive_snapshots(await subscription.fetch(1000, FETCH_S if self.bootstrapped else 0.02))
                if not self.bootstrapped and _at_end(subscription):
                    self.bootstrapped = True
                    log.info("live.bootstrapped", drives=len(self._views))
        finally:
            await subscription.close()

    def receive_snapshots(self, records: Sequence[Record]) -> None:
        """Take what is newer than what is held."""
        for record in records:
            match _decoded(record):
                case SnapshotTaken() as snapshot:
                    if self.bootstrapped:
                        _RECEIVED.observe(max(0.0, self.clock.now().timestamp() - record.published_at))
                    self._take(snapshot)
                case Heartbeat() as heartbeat:
                    self._receive_heartbeat(heartbeat)

    def _take(self, snapshot: SnapshotTaken) -> None:
        view = self._views.get(snapshot.drive_id) or DriveView(snapshot.drive_id, snapshot.slug)
        snapshot_version = (snapshot.epoch, snapshot.sequence, snapshot.revision)
        if not view.is_placeholder and snapshot_version <= view.snapshot_version:
            if snapshot_version == view.snapshot_version and (
                view.as_of is None or snapshot.as_of > view.as_of
            ):
                view.as_of = snapshot.as_of  # a republish
            return
        as_of = snapshot.as_of
        if view.as_of is not None and snapshot_version[0] == view.snapshot_version[0]:
            # Who has just taken a partition over knows less of its freshness; what was complete stays so.
            as_of = max(as_of, view.as_of)
        view.is_placeholder = False
        self._hold(view, snapshot.slug)
        view.take(snapshot_version, as_of, snapshot.totals)
        self._note_shown(view)
        self.push(view)

    def _hold(self, view: DriveView, slug: str) -> None:
        if view.slug != slug:
            self._by_slug.pop(view.slug, None)
            view.slug = slug
        self._views[view.drive_id] = self._by_slug[slug] = view

    def _receive_heartbeat(self, heartbeat: Heartbeat) -> None:
        held = self._heartbeats.get(heartbeat.partition)
        if held is not None and heartbeat.as_of < held:
            return  # of a process that lost the partition: it is no sign that the present one lives
        self._heartbeats[heartbeat.partition] = heartbeat.as_of
        # Heartbeats found at the start are from before: they were heard when they were said.
        self._received_at[heartbeat.partition] = self.clock.now() if self.bootstrapped else heartbeat.as_of

    async def follow_log(self, stop: asyncio.Event) -> None:
        """Show what happens on each drive's log from now on, until `stop`."""
        subscription = await self._bus.follow(["drive-log"], "end")
        try:
            while not stop.is_set():
                await self.receive_log(await subscription.fetch(1000, FETCH_S))
        finally:
            await subscription.close()

    async def receive_log(self, records: Sequence[Record]) -> None:
        """Send donations and milestones to those who watch, with the words approved for showing."""
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
        display_texts = await self.display_texts(
            [row.as_row() for events in watched.values() for row in events]
        )
        for drive_id, events in rows.items():
            if (view := self._views.get(drive_id)) is not None:
                view.tail = max(view.tail, events[-1].sequence)
                gifts = (event for event in events if event.type == "donation.counted")
                view.unshown += ((gift.epoch, gift.sequence, gift.at) for gift in gifts)
                self._note_shown(view)
        for view, events in watched.items():
            skipped = rows[view.drive_id][: -len(events)]
            received = [Row(row.epoch, row.sequence, row.sequence, b"") for row in skipped]
            received += [
                Row(row.epoch, row.sequence, row.sequence, event_frame(row.as_row(), display_texts))
                for row in events
            ]
            view.rows = newest([*view.rows, *received], view.drive_id)
            self._push_rows_when_due(view)

    async def display_texts(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The approved name and message of each donation among `rows`; nothing where nobody answers."""
        ids = [row["pledge"] for row in rows if row["type"] == "donation.counted" and row["pledge"]]
        if not ids:
            return {}
        try:
            async with asyncio.timeout(DISPLAY_TEXTS_TIMEOUT_S):
                reply = await post_internal(
                    self._leaderboard, self._secret, "/internal/displays", {"ids": ids}
                )
        except (ServiceUnavailable, TimeoutError) as error:
            log.warning("live.without_words", error=type(error).__name__)
            return {}
        found: Mapping[str, Any] = reply["data"]
        return found

    # What is measured.

    def _note_shown(self, view: DriveView) -> None:
        """Measure the gifts that the drive's figures now cover; a gift and its figures come apart."""
        now, waiting = self.clock.now(), view.unshown
        while waiting and waiting[0][:2] <= view.snapshot_version[:2]:
            _SHOWN.observe(max(0.0, (now - waiting.popleft()[2]).total_seconds()))

    def _worst_lag_s(self) -> float:
        now = self.clock.now()
        return max(((now - self.as_of(view)).total_seconds() for view in self._with_snapshot()), default=0.0)

    def _in_state(self, state: State) -> int:
        return sum(self.state(view) == state for view in self._with_snapshot())

    def _with_snapshot(self) -> list[DriveView]:
        return [view for view in self._views.values() if not view.is_placeholder]

    # Frames to those who watch.

    def push(self, view: DriveView) -> None:
        """Send the drive's newest totals to its clients, now or when the rate allows it."""
        if not view.connections:
            return
        now = asyncio.get_running_loop().time()
        if view.totals_due_since is None:
            view.totals_due_since = now
        if view.totals_push is None:
            due = max(self._slot(view, view.totals_at), view.frames.due(now))
            view.totals_push = self._at(due, now, self._push_totals, view)

    def _push_rows_when_due(self, view: DriveView) -> None:
        """Send the log's rows. They wait for no totals, nor totals for them, unless sends are scarce."""
        if not view.connections:
            view.rows = []  # whoever comes next was not here to miss them
        elif view.rows and view.rows_push is None:
            now = asyncio.get_running_loop().time()
            view.rows_push = self._at(self._slot(view, view.rows_at), now, self._push_rows, view)

    def _at(
        self, due: float, now: float, push: Callable[[DriveView], None], view: DriveView
    ) -> asyncio.TimerHandle | None:
        """Push at `due`; None where that was now, and it is done."""
        if due > now:
            return asyncio.get_running_loop().call_at(due, push, view)
        push(view)
        return None

    def _slot(self, view: DriveView, last: float) -> float:
        """When the next push of its kind may be, if the last one was at `last`, by the budget of sends."""
        if self.is_crowded():
            return max(view.rows_at, view.totals_at) + self.push_interval_s()
        return last + max(UNCROWDED_INTERVAL_S, 2 * self.clients / self._sends_per_s)

    def is_crowded(self) -> bool:
        """Whether the budget is too short for rows and totals apart: then they share each push."""
        return 2 * self.clients / self._sends_per_s > MIN_PUSH_INTERVAL_S

    def push_interval_s(self) -> float:
        """Seconds between two shared pushes of a drive, so that all clients together stay in the budget."""
        return min(max(self.clients / self._sends_per_s, MIN_PUSH_INTERVAL_S), MAX_PUSH_INTERVAL_S)

    def _push_rows(self, view: DriveView) -> None:
        """Send the rows that wait; with them the totals, where they share each push."""
        view.rows_push = None
        now = asyncio.get_running_loop().time()
        shares = self.is_crowded() and view.totals_due_since is not None and view.frames.due(now) <= now
        if shares:
            self._push_totals(view)
        else:
            self._send(view, b"")

    def _push_totals(self, view: DriveView) -> None:
        """Send the newest totals, and before them the rows that wait."""
        now = asyncio.get_running_loop().time()
        if view.totals_push is not None:
            view.totals_push.cancel()
            view.totals_push = None
        if view.totals_due_since is not None:
            _PUSHED.observe(now - view.totals_due_since)
            view.totals_due_since = None
        view.totals_at = now
        view.frames.spend(now)
        view.pushed_state = self.state(view)
        self._send(view, view.bytes("frame", view.pushed_state, self))

    def _send(self, view: DriveView, totals: bytes) -> None:
        loop = asyncio.get_running_loop()
        if view.rows:
            view.rows_at = loop.time()
        if view.rows_push is not None:
            view.rows_push.cancel()
            view.rows_push = None
        batch, view.rows = Batch(view.rows, totals), []
        _deliver(loop, batch, tuple(view.connections), 0)

    async def pulse(self, stop: asyncio.Event, every_s: float = 0.5) -> None:
        """Twice a second, until `stop`: changed states, quiet drives' figures, silent and stuck clients."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            for view in self._watched():
                overdue = loop.time() - view.totals_at >= REFRESH_S
                if overdue or self.state(view) != view.pushed_state:
                    self.push(view)
                for connection in tuple(view.connections):
                    connection.check_timeouts(loop.time())
            await wait_for(stop, every_s)

    def drain(self) -> None:
        """End every stream with `event: drain`."""
        for view in self._watched():
            for connection in tuple(view.connections):
                connection.drain()

    def _watched(self) -> list[DriveView]:
        return [view for view in self._views.values() if view.connections]

    # Drives nobody has counted for yet.

    async def _look_up(self, refs: Sequence[str]) -> Mapping[str, DriveView]:
        """Those of `refs` that pledges knows."""
        try:
            reply = await post_internal(self._pledges, self._secret, "/internal/drives", {"refs": refs})
        finally:
            for ref in refs:
                del self._lookups[ref]
        found = {ref: drive for ref in refs if (drive := reply["data"].get(ref)) is not None}
        self._note_unknown(ref for ref in refs if ref not in found)
        return {ref: self._hold_placeholder(drive) for ref, drive in found.items()}

    def _note_unknown(self, refs: Iterable[str]) -> None:
        """Do not ask about these for a while; of too many the oldest are asked about again."""
        until = asyncio.get_running_loop().time() + UNKNOWN_S
        for ref in refs:
            self._unknown[ref] = until
            self._unknown.move_to_end(ref)
        while len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)

    def _hold_placeholder(self, drive: Mapping[str, Any]) -> DriveView:
        """The view of a drive as pledges shows it; zeros, where no snapshot of it was heard."""
        view = self._views.get(drive["id"]) or DriveView(drive["id"], drive["slug"])
        if view.is_placeholder:
            view.placeholder_until = asyncio.get_running_loop().time() + PLACEHOLDER_S
            self._hold(view, drive["slug"])
            view.take((1, 0, 0), None, _empty_totals(drive))
        return view


def _deliver(
    loop: asyncio.AbstractEventLoop, batch: Batch, connections: Sequence[SseConnection], begin: int
) -> None:
    """Hand a push to its clients, some at a time: thousands of sends at once would hold up every request."""
    for connection in connections[begin : begin + CONNECTIONS_PER_TURN]:
        connection.push(batch)
    if begin + CONNECTIONS_PER_TURN < len(connections):
        loop.call_soon(_deliver, loop, batch, connections, begin + CONNECTIONS_PER_TURN)


def _decoded(record: Record) -> object:
    """The event of a record; None, and a line in the log, where the bytes do not fit its name."""
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


def _empty_totals(drive: Mapping[str, Any]) -> dict[str, Any]:
    """The totals of a drive nobody has given to (`drive` as pledges shows it)."""
    currency = drive["currency"]
    zero = as_json(0, currency)
    states = ("pledged", "captured", "refunded", "disputed", "offline", "matched", "held")
    milestones = [{**milestone, "reached_at": None} for milestone in drive.get("milestones") or ()]
    return {
        "drive": drive["id"], "slug": drive["slug"], "title": drive["title"], "currency": currency,
        "raised": zero, "goal": drive["goal"], "percent": 0.0, "donations": 0, "donors": 0,
        "by_state": dict.fromkeys(states, zero), "per_minute": {"donations": 0, "raised": zero},
        "leaders": [], "recent": [], "milestones": milestones,
    }  # fmt: skip
