"""Pushing of rows and totals to the clients of each drive, within a budget of sends per second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from backbone.telemetry import STAGE
from backbone.wakeups import wait_for
from gateway.live.connection import Batch, SseConnection
from gateway.live.freshness import Freshness
from gateway.live.view import DriveView
from gateway.overload.ladder import Step

UNCROWDED_INTERVAL_S: Final = 0.02
"""Between two pushes of rows, or of totals, of a drive with few clients."""
MIN_PUSH_INTERVAL_S: Final = 0.05
MAX_PUSH_INTERVAL_S: Final = 1.0
"""Between two pushes of a drive when there are so many clients that rows and totals share each push."""
CONNECTIONS_PER_TURN: Final = 200
"""Clients that receive a push in one turn of the event loop (3 ms)."""
REFRESH_S: Final = 5.0
"""How often the clients of a quiet drive receive its totals, for their `as_of`."""
PULSE_S: Final = 0.5

_PUSHED: Final = STAGE.labels("pushed", "gateway")


class FanOut:
    """Pushes to the connections of the drives in `views`."""

    def __init__(
        self, freshness: Freshness, views: Callable[[], Iterable[DriveView]], sends_per_s: float
    ) -> None:
        self.clients = 0
        """Open streams of all drives."""
        self._freshness = freshness
        self._views = views
        self._sends_per_s = sends_per_s

    def push_totals(self, view: DriveView) -> None:
        """Send the drive's newest totals to its clients, now or when the rate allows it."""
        if not view.connections:
            return
        now = asyncio.get_running_loop().time()
        if view.totals_due_since is None:
            view.totals_due_since = now
        if view.totals_push is None:
            due = max(self._slot(view, view.totals_at), view.frames.due(now))
            view.totals_push = self._at(due, now, self._push_totals_now, view)

    def push_rows(self, view: DriveView) -> None:
        """Send the drive's pending rows of the log, now or when the rate allows it.

        Rows and totals do not wait for each other unless sends are scarce.
        """
        if not view.connections:
            view.rows = []  # later clients begin after them
        elif view.rows and view.rows_push is None:
            now = asyncio.get_running_loop().time()
            view.rows_push = self._at(self._slot(view, view.rows_at), now, self._push_rows_now, view)

    def _at(
        self, due: float, now: float, push: Callable[[DriveView], None], view: DriveView
    ) -> asyncio.TimerHandle | None:
        """Push at `due` and return the timer; None where the push is already done."""
        if due > now:
            return asyncio.get_running_loop().call_at(due, push, view)
        push(view)
        return None

    def _slot(self, view: DriveView, last: float) -> float:
        """When the budget of sends allows the next push of a kind whose last one was at `last`."""
        if self.is_crowded():
            return max(view.rows_at, view.totals_at) + self.push_interval_s()
        return last + max(UNCROWDED_INTERVAL_S, 2 * self.clients / self._sends_per_s)

    def is_crowded(self) -> bool:
        """Whether the budget does not allow separate pushes of rows and totals, so that they share each."""
        return self._is_slowed() or 2 * self.clients / self._sends_per_s > MIN_PUSH_INTERVAL_S

    def _is_slowed(self) -> bool:
        return self._freshness.step >= Step.SNAPSHOTS

    def push_interval_s(self) -> float:
        """Seconds between two shared pushes of a drive that keep all clients together within the budget."""
        if self._is_slowed():
            return MAX_PUSH_INTERVAL_S
        return min(max(self.clients / self._sends_per_s, MIN_PUSH_INTERVAL_S), MAX_PUSH_INTERVAL_S)

    def _push_rows_now(self, view: DriveView) -> None:
        """Send the pending rows, with the totals where they share each push."""
        view.rows_push = None
        now = asyncio.get_running_loop().time()
        shares = self.is_crowded() and view.totals_due_since is not None and view.frames.due(now) <= now
        if shares:
            self._push_totals_now(view)
        else:
            self._send(view, b"")

    def _push_totals_now(self, view: DriveView) -> None:
        """Send the newest totals, preceded by the pending rows."""
        now = asyncio.get_running_loop().time()
        if view.totals_push is not None:
            view.totals_push.cancel()
            view.totals_push = None
        if view.totals_due_since is not None:
            _PUSHED.observe(now - view.totals_due_since)
            view.totals_due_since = None
        view.totals_at = now
        view.frames.spend(now)
        state = self._freshness.state(view)
        view.pushed = (state, self._freshness.step)
        self._send(view, view.bytes("frame", state, self._freshness))

    def _send(self, view: DriveView, totals: bytes) -> None:
        loop = asyncio.get_running_loop()
        if view.rows:
            view.rows_at = loop.time()
        if view.rows_push is not None:
            view.rows_push.cancel()
            view.rows_push = None
        batch, view.rows = Batch(view.rows, totals), []
        _deliver(loop, batch, tuple(view.connections), 0)

    async def pulse(self, stop: asyncio.Event, every_s: float = PULSE_S) -> None:
        """Until `stop`: push changed states and quiet drives' totals; report missing rows; check timeouts."""
        while not stop.is_set():
            self._look_after_streams()
            await wait_for(stop, every_s)

    def _look_after_streams(self) -> None:
        """One round of `pulse`. Its own variables would keep an ended connection until the next round."""
        now = asyncio.get_running_loop().time()
        for view in self._watched():
            overdue = now - view.totals_at >= REFRESH_S
            if overdue or (self._freshness.state(view), self._freshness.step) != view.pushed:
                self.push_totals(view)
            due = view.rows_due(now)
            for connection in tuple(view.connections):
                connection.report_missing(due)
                connection.check_timeouts(now)

    def drain(self) -> None:
        """End every stream with `event: drain`."""
        for view in self._watched():
            for connection in tuple(view.connections):
                connection.drain()

    def _watched(self) -> list[DriveView]:
        return [view for view in self._views() if view.connections]


def _deliver(
    loop: asyncio.AbstractEventLoop, batch: Batch, connections: Sequence[SseConnection], begin: int
) -> None:
    """Hand a push to its clients in several turns: thousands of sends at once would delay every request."""
    for connection in connections[begin : begin + CONNECTIONS_PER_TURN]:
        connection.push(batch)
    if begin + CONNECTIONS_PER_TURN < len(connections):
        loop.call_soon(_deliver, loop, batch, connections, begin + CONNECTIONS_PER_TURN)
