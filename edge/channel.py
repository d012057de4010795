"""One drive's channel of one nchan: what waits to be published there, and the publishing."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import aiohttp
import structlog
from prometheus_client import Counter, Gauge

from edge.frames import Frame, gap_frame

MAX_ROWS: Final = 1000
"""Rows that wait for an nchan which does not answer; of more, a `gap` is published instead."""
ROWS_PER_MESSAGE: Final = 250
TIMEOUT_S: Final = 5.0
STOP_SEEN_S: Final = 1.0

_PUBLISHED = Counter("ataa_edge_published_total", "Messages published to nchan.")
_FAILED = Counter("ataa_edge_publish_failures_total", "Messages that an nchan did not take.")
_SUBSCRIBERS = Gauge("ataa_edge_subscribers", "Streams that the nchans serve, as of the last messages.")
_subscribers: dict[str, int] = {}

log = structlog.get_logger()


class Channel:
    """Publishes a drive's frames to one nchan, at most `frames_per_s` messages a second.

    A message is the newest totals and, after them, the rows of the log since the last message: whoever
    connects gets the newest message first. A message that fails is sent again, so a row may come twice; its
    `id` tells.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, drive: str, frames_per_s: float) -> None:
        self.published = 0
        """The sequence of the last row that this nchan has."""
        self._session = session
        self._url = url
        self._drive = drive
        self._interval_s = 1.0 / frames_per_s
        self._totals: Frame | None = None
        self._rows: deque[Frame] = deque()
        self._news = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        """Publish `frame` with the next message."""
        if frame.event == "totals":
            self._totals = frame
        else:
            self._rows.append(frame)
            if len(self._rows) > MAX_ROWS:
                last = _last_sequence(self._rows, self.published)
                self._rows.clear()
                self._rows.append(gap_frame(self._drive, self.published, last))
        if self._totals is not None:
            self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SEEN_S):
                    await self._news.wait()
            began = loop.time()
            if self._news.is_set():
                await self._publish()
                await _wait(stop, self._interval_s - (loop.time() - began))

    async def _publish(self) -> None:
        assert self._totals is not None
        self._news.clear()
        rows = [self._rows[place] for place in range(min(len(self._rows), ROWS_PER_MESSAGE))]
        try:
            await self._post(b"".join(frame.text for frame in (self._totals, *rows)))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _FAILED.inc()
            log.warning("edge.not_published", url=self._url, error=f"{type(error).__name__}: {error}")
            self._news.set()
            return
        _PUBLISHED.inc()
        self.published = _last_sequence(rows, self.published)
        # By identity: while the message was under way, `offer` may have replaced all rows by a gap.
        while rows and self._rows and self._rows[0] is rows[0]:
            self._rows.popleft()
            rows.pop(0)
        if self._rows:
            self._news.set()

    async def _post(self, message: bytes) -> None:
        headers = {"Accept": "text/json", "Content-Type": "text/event-stream"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with self._session.post(self._url, data=message, headers=headers, timeout=timeout) as answer:
            if answer.status not in (201, 202):
                raise ValueError(f"nchan answered {answer.status}")
            with suppress(ValueError, TypeError, KeyError):
                _subscribers[self._url] = int(json.loads(await answer.read())["subscribers"])
                _SUBSCRIBERS.set(sum(_subscribers.values()))


def _last_sequence(rows: Iterable[Frame], before: int) -> int:
    """The sequence of the newest row that has one; after a restore it may be lower than `before`."""
    return next((row.sequence for row in reversed(list(rows)) if row.sequence), before)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
