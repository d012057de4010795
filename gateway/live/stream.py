"""The reply to a live stream's request: the newest totals, missed rows, then new frames as they arise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from prometheus_client import Gauge
from starlette.types import Send

from backbone.http.service_client import ServiceClient, ServiceUnavailable
from gateway.http.asgi import Header, Request
from gateway.live.connection import SseConnection, event_frame, gap_frame
from gateway.live.hub import Hub
from gateway.live.view import DriveView

MAX_REPLAYED: Final = 500
_PAGE: Final = 100

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
        leaderboard: ServiceClient,
        caller_headers: Mapping[str, str],
        last_event_id: str | None,
    ) -> None:
        self._hub = hub
        self._view = view
        self._leaderboard = leaderboard
        self._caller_headers = caller_headers
        self._after = last_event_id

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Stream until the client disconnects, is disconnected for slowness, or a drain begins."""
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
        if request.method == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        connection = SseConnection(self._view.drive_id, _aborter(send))
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
        """Send the first frames: the reconnection delay and the newest totals; then replay missed rows."""
        retry = b"retry: %d\n\n" % random.randint(1000, 5000)  # noqa: S311 - spreads reconnections
        freshness = self._hub.freshness
        totals = self._view.bytes("frame", freshness.state(self._view), freshness)
        connection.replay(retry + totals)
        after = self._after or ""
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            return None
        connection.hold()
        return asyncio.create_task(self._replay(connection, int(after)))

    async def _replay(self, connection: SseConnection, after: int) -> None:
        """Replay the frames after sequence `after`, or a `gap` for more than 500 rows of the log."""
        epoch, tail = self._view.snapshot_version[0], self._view.tail
        display_texts: Mapping[str, Any] = {}
        try:
            if after > tail and not await self._page(after - 1, 1):
                # The log never reached that sequence: the client read it before a restore that lost rows.
                after, tail = 0, MAX_REPLAYED + 1
            rows = None if tail - after > MAX_REPLAYED else await self._rows(after)
            if rows:
                display_texts = await self._hub.display_texts.of(rows)
        except Exception as error:  # any error: otherwise the connection would hold its rows back for ever
            log.warning("live.not_replayed", error=f"{type(error).__name__}: {error}")
            rows = None
        if rows is None:
            connection.replay(gap_frame(self._view.drive_id, after))
            connection.release((epoch, self._view.tail))
            return
        for row in rows:
            if shown := event_frame(row, display_texts):
                connection.replay(shown)
        connection.release((epoch, rows[-1]["sequence"] if rows else after))

    async def _rows(self, after: int) -> list[Mapping[str, Any]] | None:
        """The log after a sequence; None if it is longer than what is replayed."""
        rows: list[Mapping[str, Any]] = []
        while len(rows) <= MAX_REPLAYED:
            page = await self._page(rows[-1]["sequence"] if rows else after, _PAGE)
            rows += page
            if len(page) < _PAGE:
                return rows
        return None

    async def _page(self, after: int, limit: int) -> list[Mapping[str, Any]]:
        path = f"/v1/drives/{self._view.drive_id}/events"
        query = f"after={after}&limit={limit}"
        reply = await self._leaderboard.request("GET", path, headers=self._caller_headers, query=query)
        if reply.status != 200:
            raise ServiceUnavailable(f"{path} answered {reply.status}")
        rows: list[Mapping[str, Any]] = reply.json()["data"]
        return rows


async def _end_when_disconnected(
    disconnected: Callable[[], Awaitable[None]], connection: SseConnection
) -> None:
    await disconnected()
    connection.end()


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
