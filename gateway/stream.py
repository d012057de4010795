"""A drive's live stream: server-sent events over bare ASGI, one shared frame for everybody.

What a client may rely on: `totals` frames never go back in (epoch, sequence, revision), and older
ones are left out where it reads slowly; `donation` and `milestone` frames come in the order of the
drive's log, each once a connection, and where some were missed a `gap` says so first. A donation of
sequence n may come before the `totals` that cover n; those follow. Source of the format:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import Counter, Gauge
from starlette.types import Send

from backbone.peer import Peer, PeerUnavailable
from gateway.asgi import Header, Request

if TYPE_CHECKING:
    from gateway.live import Hub, View

SILENCE_S: Final = 15.0
STUCK_S: Final = 5.0
MOST_WAITING: Final = 256
"""Donations a client may be behind before it is dropped."""
MOST_REPLAYED: Final = 500
_PAGE: Final = 100
_COMMENT: Final = b":\n\n"
_DRAIN: Final = b"event: drain\ndata: {}\n\n"

HEADERS: Final[list[Header]] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

_CLIENTS = Gauge("ataa_live_clients", "Open live streams.")
_DROPPED = Counter(
    "ataa_live_dropped_total", "Live streams ended because the client read too slowly.", ["why"]
)

log = structlog.get_logger()


def frame(event: str, data: bytes, identifier: int | None = None) -> bytes:
    """One server-sent event; `data` is JSON without line breaks."""
    head = b"" if identifier is None else b"id: %d\n" % identifier
    return b"event: %s\n%sdata: %s\n\n" % (event.encode(), head, data)


def event_frame(row: Mapping[str, Any], words: Mapping[str, Any]) -> bytes | None:
    """The frame of a row of the drive's log, None for rows that streams do not show."""
    if row["type"] == "donation.counted":
        said = words.get(row["pledge"]) or {}
        gift = {"id": f"don_{str(row['payment']).partition('_')[2]}", "name": said.get("name"),
                "message": said.get("message")}  # fmt: skip
        return frame("donation", _json({**gift, **row}), row["sequence"])
    if row["type"] == "milestone.reached":
        return frame("milestone", _json(row), row["sequence"])
    return None


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Listener:
    """One client's end of a stream: what it still has to be sent, and how long it has been stuck.

    Only the newest `totals` waits; donations wait in order, at most `MOST_WAITING`.
    """

    __slots__ = (
        "_abort", "_drive", "_events", "_held", "_last", "_news", "_sending_since", "_sent_at", "_totals",
        "ended", "last_words",
    )  # fmt: skip

    def __init__(self, drive: str, abort: Callable[[], None]) -> None:
        self._drive = drive
        self._abort = abort
        self._events: deque[bytes] = deque()
        self._held: list[tuple[int, int, bytes | None]] | None = None
        self._last: tuple[int, int] | None = None
        self._news: asyncio.Future[None] | None = None
        self._sending_since: float | None = None
        self._sent_at = asyncio.get_running_loop().time()
        self._totals: bytes | None = None
        self.ended = False
        self.last_words = b""

    def show(self, totals: bytes) -> None:
        """Send these totals; an older frame that still waits is forgotten."""
        self._totals = totals
        self._wake()

    def offer(self, epoch: int, sequence: int, shown: bytes | None) -> None:
        """The next row of the log (`shown` is None where it has no frame)."""
        if self._held is not None:
            self._held.append((epoch, sequence, shown))
            return
        if self._last is not None and self._last[0] == epoch:
            if sequence <= self._last[1]:
                return
            if sequence > self._last[1] + 1:
                self._queue(gap_frame(self._drive, self._last[1]))
        self._last = (epoch, sequence)
        if shown is not None:
            self._queue(shown)

    def hold(self) -> None:
        """Keep the log's rows back while what was missed is replayed."""
        self._held = []

    def release(self, last: tuple[int, int] | None) -> None:
        """Go on after `last` (epoch, sequence): rows up to it were replayed."""
        held, self._held = self._held or [], None
        self._last = last
        for row in held:
            self.offer(*row)

    def replay(self, shown: bytes) -> None:
        """Send a frame that was missed."""
        self._events.append(shown)
        self._wake()

    def drain(self) -> None:
        """End the stream with `event: drain`."""
        self.last_words = _DRAIN
        self.end()

    def end(self) -> None:
        """End the stream once what waits was sent."""
        self.ended = True
        self._wake()

    def look_after(self, now: float) -> None:
        """Drop a client that does not take what it is sent; say something to one that hears nothing."""
        if self._sending_since is not None:
            if now - self._sending_since >= STUCK_S:
                self._drop("stuck")
        elif now - self._sent_at >= SILENCE_S:
            self._events.append(_COMMENT)
            self._wake()

    async def run(self, send: Send) -> None:
        """Send what there is until the end."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._events and self._totals is None:
                if self.ended:
                    break
                self._news = loop.create_future()
                await self._news
                self._news = None
                continue
            self._sending_since = loop.time()
            await send({"type": "http.response.body", "body": self._take(), "more_body": True})
            self._sent_at, self._sending_since = loop.time(), None
        await send({"type": "http.response.body", "body": self.last_words, "more_body": False})

    def _take(self) -> bytes:
        """All that waits. Donations go before totals, so that in one write the totals cover them."""
        totals, self._totals = self._totals, None
        if not self._events:
            return totals or b""
        parts = [*self._events, totals or b""]
        self._events.clear()
        return b"".join(parts)

    def _queue(self, shown: bytes) -> None:
        if len(self._events) >= MOST_WAITING:
            self._drop("behind")
            return
        self._events.append(shown)
        self._wake()

    def _drop(self, why: str) -> None:
        if self.ended:
            return
        _DROPPED.labels(why).inc()
        self._events.clear()
        self._totals = None
        self.end()
        self._abort()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def gap_frame(drive: str, after: int) -> bytes:
    """Says that rows after sequence `after` were missed, and where to read them."""
    return frame("gap", _json({"after": after, "events": f"/v1/drives/{drive}/events?after={after}"}))


class LiveStream:
    """The reply to `GET /v1/drives/{drive}/live`."""

    def __init__(
        self, hub: Hub, view: View, leaderboard: Peer, vouched: Mapping[str, str], last_event_id: str | None
    ) -> None:
        self._hub = hub
        self._view = view
        self._leaderboard = leaderboard
        self._vouched = vouched
        self._after = last_event_id

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Stream until the client leaves, is dropped, or a drain begins."""
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
        if request.method == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        listener = Listener(self._view.drive_id, _aborter(send))
        watch = asyncio.create_task(_until_left(request.left, listener))
        replay = self._begin(listener)
        self._view.listeners.add(listener)
        self._hub.clients += 1
        _CLIENTS.inc()
        try:
            await listener.run(send)
        finally:
            _CLIENTS.dec()
            self._hub.clients -= 1
            self._view.listeners.discard(listener)
            watch.cancel()
            if replay is not None:
                replay.cancel()

    def _begin(self, listener: Listener) -> asyncio.Task[None] | None:
        """The first frames: when to come back, the newest totals, and what was missed."""
        retry = b"retry: %d\n\n" % random.randint(1000, 5000)  # noqa: S311 - spreads reconnections
        totals = self._view.bytes("frame", self._hub.state(self._view), self._hub)
        listener.replay(retry + totals)
        after = self._after or ""
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            return None
        listener.hold()
        return asyncio.create_task(self._replay(listener, int(after)))

    async def _replay(self, listener: Listener, after: int) -> None:
        """Frames after sequence `after`, at most 500 rows of the log, else a `gap`."""
        epoch, newest = self._view.triple[0], self._view.tail
        words: Mapping[str, Any] = {}
        try:
            if after > newest and not await self._page(after - 1, 1):
                # The log never reached that sequence: the client's is of before a lossy restore.
                after, newest = 0, MOST_REPLAYED + 1
            rows = None if newest - after > MOST_REPLAYED else await self._rows(after)
            if rows:
                words = await self._hub.words(rows)
        except PeerUnavailable as error:
            log.warning("live.not_replayed", error=str(error))
            rows = None
        if rows is None:
            listener.replay(gap_frame(self._view.drive_id, after))
            listener.release((epoch, self._view.tail))
            return
        for row in rows:
            if (shown := event_frame(row, words)) is not None:
                listener.replay(shown)
        listener.release((epoch, rows[-1]["sequence"] if rows else after))

    async def _rows(self, after: int) -> list[Mapping[str, Any]] | None:
        """The log after a sequence, None where it is more than is replayed."""
        rows: list[Mapping[str, Any]] = []
        while len(rows) <= MOST_REPLAYED:
            page = await self._page(rows[-1]["sequence"] if rows else after, _PAGE)
            rows += page
            if len(page) < _PAGE:
                return rows
        return None

    async def _page(self, after: int, limit: int) -> list[Mapping[str, Any]]:
        path = f"/v1/drives/{self._view.drive_id}/events"
        query = f"after={after}&limit={limit}"
        reply = await self._leaderboard.request("GET", path, headers=self._vouched, query=query)
        if reply.status != 200:
            raise PeerUnavailable(f"{path} answered {reply.status}")
        rows: list[Mapping[str, Any]] = reply.json()["data"]
        return rows


async def _until_left(left: Callable[[], Awaitable[None]], listener: Listener) -> None:
    await left()
    listener.end()


def _aborter(send: Send) -> Callable[[], None]:
    """Resets the connection behind `send`.

    ASGI knows no such thing: closing politely would first flush what the client does not read. So
    uvicorn's transport is taken where it is found; with another server the stream's task is cancelled.
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
