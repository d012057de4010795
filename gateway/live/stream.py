"""The reply to a live stream's request: the newest totals, missed rows, then new frames as they arise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Gauge
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

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


class LiveStream:
    """The reply to `GET /v1/drives/{drive}/live`."""

    def __init__(
        self,
        hub: Hub,
        view: DriveView,
        last_event_id: str | None,
    ) -> None:
        self._hub = hub
        self._view = view
        self._after = last_event_id

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Stream until the client disconnects, is disconnected for slowness, or a drain begins."""
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
        if request.method == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        connection = SseConnection(self._view.drive_id, _aborter(send), _cycle(send))
        watch = asyncio.create_task(_end_when_disconnected(request.disconnected, connection))
        replay = self._begin(connection)
        self._view.connections.add(connection)
        self._hub.fan_out.clients += 1
        _CLIENTS.inc()
        try:
            await connection.run(send)
        finally:
            _CLIENTS.dec()
            self._hub.fan_out.clients -= 1
            self._view.connections.discard(connection)
            watch.cancel()
            if replay is not None:
                replay.cancel()

    def _begin(self, connection: SseConnection) -> asyncio.Task[None] | None:
        """Send the first frames: the reconnection delay and the newest totals; then replay missed rows.

        A new client gets the sequence from which it will resume if it receives no row: as an `id` without an
        event, which sets `EventSource`'s last event id and dispatches nothing
        (https://html.spec.whatwg.org/multipage/server-sent-events.html#dispatchMessage).
        """
        hub, view = self._hub, self._view
        retry = b"retry: %d\n" % random.randint(1000, 5000)  # noqa: S311 - spreads reconnections
        totals = view.bytes("frame", hub.freshness.state(view), hub.freshness)
        after = self._after or ""
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            connection.replay(b"%sid: %d\n\n%s" % (retry, view.tail, totals))
            connection.begin((view.snapshot_version[0], view.tail))
            return None
        connection.replay(retry + b"\n" + totals)
        connection.hold()
        return asyncio.create_task(self._replay(connection, int(after)))

    async def _replay(self, connection: SseConnection, after: int) -> None:
        """Replay the frames after sequence `after`, or a `gap` for more than 500 rows of the log."""
        told = self._view.snapshot_version[0], self._view.tail
        try:
            missed = await self._hub.replays.after(self._view, after)
        except Exception as error:  # any error: otherwise the connection would hold its rows back for ever
            if isinstance(error, NotReplayed):
                after = error.after
            else:
                log.warning("live.not_replayed", error=f"{type(error).__name__}: {error}")
            connection.replay(gap_frame(self._view.drive_id, after))
            connection.release(told)
            return
        for row in missed.rows:
            if row.shown:
                connection.replay(row.shown)
        connection.release(missed.last)


async def _end_when_disconnected(
    disconnected: Callable[[], Awaitable[None]], connection: SseConnection
) -> None:
    await disconnected()
    connection.end()


def _cycle(send: Send) -> RequestResponseCycle | None:
    """uvicorn's response cycle behind `send`; None with another server."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestResponseCycle) else None


def _aborter(send: Send) -> Callable[[], None]:
    """A function that resets the connection behind `send`.

    ASGI has no such operation, and a regular close would first flush bytes that the client does not read.
    Therefore uvicorn's transport is aborted; with another server the stream's task is cancelled.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None and hasattr(transport, "abort"):
        abort: Callable[[], None] = transport.abort
        return abort
    task = asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            task.cancel()

    return cancel
