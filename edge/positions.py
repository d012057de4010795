"""Keeps, across restarts, up to which row of its log a drive has been published."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge.channel import Channel

WRITE_EVERY_S: Final = 1.0


class Positions:
    """The last row that every channel of a drive has, in a file.

    After a restart the gateway replays the rows after it, or sends a `gap`; some may be published twice.
    """

    def __init__(self, file: Path, channels: Sequence[Channel]) -> None:
        self._file = file
        self._channels = channels
        self._written = 0

    def read(self) -> int | None:
        """The sequence kept by an earlier run; None without one."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            self._written = int(json.loads(self._file.read_text())["published"])
            for channel in self._channels:
                channel.published = self._written
            return self._written
        return None

    async def keep(self, stop: asyncio.Event) -> None:
        """Write the position once a second where it moved, and at the stop."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await stop.wait()
            self._write()

    def _write(self) -> None:
        published = min(channel.published for channel in self._channels)
        if published == self._written:
            return
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"published": published}))
        new.replace(self._file)
        self._written = published
