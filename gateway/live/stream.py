"""Live streams: the newest totals, missed rows, then new frames as they arise. An open stream has no task."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import structlog
from prometheus_client import Gauge
from starlette.types import Send

from backbone.http import pushed_response
from backbone.http.pushed_response import PushedResponse
from gateway.http.asgi import Header, Request
from gateway.live.connection import SseConnection, gap_frame
from gateway.live.hub import Hub
from gateway.live.replay import NotReplayed
from gateway.live.view import DriveView

HEADERS: Final[list[Header]] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

_CLIENTS = Gauge("ataa_live_clients", "Open live streams.")

log = structlog.get_logger()


class LiveStreams:
    """Begins the streams of the drives in `hub`, and removes those that have ended."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._replays: dict[SseConnection, asyncio.Task[None]] = {}

    def begin(self, view: DriveView, response: PushedResponse, last_event_id: str | None) -> None:
        """Send the first frames: the reconnection delay and the newest totals; then replay missed rows.

        A new client gets the sequence from which it will resume if it receives no row: as an `id` without an
        event, which sets `EventSource`'s last event id and dispatches nothing
        (https://html.spec.whatwg.org/multipage/server-sent-events.html#dispatchMessage).
        """
        hub = self._hub
        connection = SseConnection(view.drive_id, response, self._remove)
        view.connections.add(connection)
        hub.fan_out.clients += 1
        _CLIENTS.inc()
        retry = b"retry: %d\n" % random.randint(1000, 5000)  # noqa: S311 - spreads reconnections
        totals = view.bytes("frame", hub.freshness.state(view), hub.freshness)
        after = last_event_id or ""
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            connection.replay(b"%sid: %d\n\n%s" % (retry, view.tail, totals))
            connection.begin((view.snapshot_version[0], view.tail))
        else:
            connection.replay(retry + b"\n" + totals)
            connection.hold()
            self._replays[connection] = asyncio.create_task(self._replay(view, connection, int(after)))

    def _remove(self, connection: SseConnection) -> None:
        view = self._hub.known(connection.drive)
        if view is not None:
            view.connections.discard(connection)
        self._hub.fan_out.clients -= 1
        _CLIENTS.dec()
        replay = self._replays.pop(connection, None)
        if replay is not None:
            replay.cancel()

    async def _replay(self, view: DriveView, connection: SseConnection, after: int) -> None:
        """Replay the frames after sequence `after`, or a `gap` for more than 500 rows of the log."""
        told = view.snapshot_version[0], view.tail
        try:
            missed = await self._hub.replays.after(view, after)
        except Exception as error:  # any error: otherwise the connection would hold its rows back for ever
            if isinstance(error, NotReplayed):
                after = error.after
            else:
                log.warning("live.not_replayed", error=f"{type(error).__name__}: {error}")
            connection.replay(gap_frame(view.drive_id, after))
            connection.release(told)
        else:
            for row in missed.rows:
                if row.shown:
                    connection.replay(row.shown)
            connection.release(missed.last)
        self._replays.pop(connection, None)


class LiveStream:
    """The response to `GET /v1/drives/{drive}/live`."""

    def __init__(self, streams: LiveStreams, view: DriveView, last_event_id: str | None) -> None:
        self._streams = streams
        self._view = view
        self._last_event_id = last_event_id

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Begin the stream. It ends when the client disconnects or reads too slowly, or a drain begins."""
        every = [*HEADERS, *headers]
        if request.method == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": every})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        response = await pushed_response.begin(send, every)
        if response is not None:
            self._streams.begin(self._view, response, self._last_event_id)
