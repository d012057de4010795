"""Follows the live stream of a drive, as an overlay does, and records when each sequence arrived."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from rehearsal.freshness import Freshness

_READ_TIMEOUT_S: Final = 40.0
"""The gateway sends a comment every 15 s; a stream without data for longer has failed."""
_MAX_FRAME: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    event: str
    id: str | None
    data: bytes


class BrokenStream(Exception):
    """The response is not a valid stream of server-sent events."""


class LiveStream:
    """Follows a drive's stream until cancelled; `totals` is the newest frame, `frames` their number.

    `has_totals` is set when the first has arrived.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, freshness: Freshness) -> None:
        self.totals: Mapping[str, Any] = {}
        self.frames = 0
        self.has_totals = asyncio.Event()
        self._session = session
        self._url = url
        self._freshness = freshness
        self._last_id: str | None = None

    async def follow(self) -> None:
        """Read the stream, and reconnect with `Last-Event-ID` whenever it ends."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, BrokenStream):
                await self._read_once()
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - jitter, not a secret

    async def _read_once(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0, sock_read=_READ_TIMEOUT_S)
        async with self._session.get(self._url, headers=headers, timeout=timeout) as response:
            if response.status != 200:
                raise BrokenStream(f"{response.status}")
            async for frame in frames(response.content.iter_any()):
                self.receive(frame)
                if frame.event == "drain":
                    return

    def receive(self, frame: Frame) -> None:
        """Record a frame. Raises BrokenStream."""
        self._last_id = frame.id or self._last_id
        if frame.event != "totals":
            return
        at = time.time()
        try:
            totals = json.loads(frame.data)
            sequence = int(totals["sequence"])
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenStream("totals without a sequence") from error
        self.frames += 1
        self.totals = totals
        self._freshness.note_frame(sequence, at)
        self.has_totals.set()


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """Assemble frames from chunks split anywhere; comments and retry hints are skipped."""
    waiting = b""
    async for chunk in chunks:
        waiting = (waiting + chunk).replace(b"\r\n", b"\n")
        *whole, waiting = waiting.split(b"\n\n")
        if len(waiting) > _MAX_FRAME:
            raise BrokenStream(f"a frame of over {_MAX_FRAME} bytes")
        for block in whole:
            frame = _frame(block)
            if frame is not None:
                yield frame


def _frame(block: bytes) -> Frame | None:
    event, identifier, data = "message", None, []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            event = value.decode()
        elif name == b"id":
            identifier = value.decode()
        elif name == b"data":
            data.append(value)
    return Frame(event, identifier, b"\n".join(data)) if data else None
