"""Follows a drive's stream at the gateway and hands its frames to the drive's channels."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import aiohttp
import structlog

from edge.channel import Channel
from edge.frames import BrokenStream, Frame, frames

READ_TIMEOUT_S: Final = 20.0
"""The gateway sends totals every 5 s; a stream without data for longer has failed."""

log = structlog.get_logger()


class Follower:
    """Follows one drive's stream, and resumes after the last row where it breaks."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        gateway: str,
        drive: str,
        channels: Sequence[Channel],
        after: int | None,
    ) -> None:
        self._session = session
        self._url = f"{gateway}/v1/drives/{drive}/live"
        self._channels = channels
        self._after = after

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop`; a broken stream is opened again within a second."""
        while not stop.is_set():
            reading = asyncio.ensure_future(self._read())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, stopping):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0.1, 0.5)):  # noqa: S311 - spreads reconnections
                    await stop.wait()

    async def _read(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self._after is not None:
            headers["Last-Event-ID"] = str(self._after)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0, sock_read=READ_TIMEOUT_S)
        try:
            async with self._session.get(self._url, headers=headers, timeout=timeout) as answer:
                if answer.status != 200:
                    raise BrokenStream(f"the gateway answered {answer.status}")
                async for frame in frames(answer.content.iter_any()):
                    if frame.event == "drain":
                        return
                    self._take(frame)
        except (aiohttp.ClientError, OSError, TimeoutError, BrokenStream) as error:
            log.warning("edge.stream_lost", url=self._url, error=f"{type(error).__name__}: {error}")

    def _take(self, frame: Frame) -> None:
        if frame.sequence:
            self._after = frame.sequence
        for channel in self._channels:
            channel.offer(frame)
