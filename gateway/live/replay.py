"""Replays of a drive's log to clients that resume; clients that resume together share the reads.

After a restart of the gateway all its clients resume within seconds, each from nearly the same sequence. The
rows come from leaderboard, once for all of them, and rows that arrive meanwhile are added to what was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from backbone.http.service_client import ServiceClient, ServiceUnavailable
from gateway.live.connection import Row
from gateway.live.view import DriveView

MAX_REPLAYED: Final = 500
"""Rows that a client may have missed; beyond that it is told where to read them."""
KEPT_S: Final = 1.0
"""How long rows that were read are used, with the names and messages that were shown with them."""
_EARLIER: Final = 50
"""Rows that are read in addition, for clients that resume from slightly further back."""
_PAGE: Final = 100
_READS: Final = 3
"""Reads that a client waits for: the first may be another client's, which began at a later sequence."""

ToFrames = Callable[[DriveView, Sequence[Mapping[str, Any]]], Awaitable[Sequence[bytes]]]
"""The frames of rows of a drive's log, empty for rows that streams do not show."""


class Replayed(NamedTuple):
    """The rows that a client missed, up to `last` (epoch, sequence)."""

    rows: Sequence[Row]
    last: tuple[int, int]


class NotReplayed(Exception):
    """More than `MAX_REPLAYED` rows were missed, or the log never reached the client's sequence.

    `after` is the sequence after which the client has to read the log itself.
    """

    def __init__(self, after: int) -> None:
        super().__init__(f"after {after}")
        self.after = after


class RecentRows:
    """The rows of a drive's log after a sequence, to the log's end."""

    def __init__(self, epoch: int, after: int) -> None:
        self.epoch = epoch
        self.after = after
        self.rows: list[Row] = []
        self.kept_until: float | None = None
        """On the loop's clock; None while the rows are being read."""
        self._arrived: list[Row] = []

    @property
    def last(self) -> int:
        """The sequence of the last row."""
        return self.rows[-1].last if self.rows else self.after

    def add(self, rows: Sequence[Row]) -> bool:
        """Add rows that arrived; False if rows before them are missing here."""
        if self.kept_until is None:
            self._arrived += rows
            return True
        for row in rows:
            if row.epoch != self.epoch or row.first > self.last + 1:
                return False
            if row.last > self.last:
                self.rows.append(row)
        return True

    def complete(self, rows: Sequence[Row], kept_until: float) -> bool:
        """Add the rows that were read, then those that arrived meanwhile; False if some are missing."""
        self.kept_until = kept_until
        return self.add(rows) and self.add(self._arrived)


class Replays:
    """Reads rows of the drives' logs from leaderboard, at most once at a time for each drive."""

    def __init__(
        self, leaderboard: ServiceClient, caller_headers: Mapping[str, str], to_frames: ToFrames
    ) -> None:
        self._leaderboard = leaderboard
        self._caller_headers = caller_headers
        self._to_frames = to_frames
        self._recent: dict[str, RecentRows] = {}
        self._reads: dict[str, asyncio.Task[RecentRows | None]] = {}

    def add(self, view: DriveView, rows: Sequence[Row]) -> None:
        """Add rows that arrived on the bus to what is kept of the drive's log."""
        recent = self._recent.get(view.drive_id)
        if recent is not None and not recent.add(rows):
            self.forget(view)

    def forget(self, view: DriveView) -> None:
        """Keep nothing of the drive's log: rows arrived that are not added."""
        self._recent.pop(view.drive_id, None)

    async def after(self, view: DriveView, after: int) -> Replayed:
        """The rows after sequence `after`. Raises `NotReplayed`, `ServiceUnavailable`."""
        if view.tail - after > MAX_REPLAYED:
            raise NotReplayed(after)
        recent = await self._covering(view, after)
        if after > recent.last:
            raise NotReplayed(0)  # the client read that sequence before a restore that lost rows
        missed = recent.rows[after - recent.after :]
        if len(missed) > MAX_REPLAYED:
            raise NotReplayed(after)
        return Replayed(missed, (recent.epoch, recent.last))

    async def _covering(self, view: DriveView, after: int) -> RecentRows:
        """The newest rows, from `after` or earlier. Raises `NotReplayed`, `ServiceUnavailable`."""
        for _ in range(_READS):
            recent = self._held(view, after)
            try:
                recent = recent or await self._read_on(view, after)
            except NotReplayed:  # with the sequence of the client that began the read
                break
            if recent is not None and recent.after <= after:
                return recent
        raise NotReplayed(after)

    def _held(self, view: DriveView, after: int) -> RecentRows | None:
        """What is kept, if it answers a client that resumes at `after`."""
        recent = self._recent.get(view.drive_id)
        if recent is None or recent.kept_until is None:
            return None
        fresh = asyncio.get_running_loop().time() < recent.kept_until
        same_log = recent.epoch == view.snapshot_version[0]
        return recent if fresh and same_log and recent.after <= after else None

    async def _read_on(self, view: DriveView, after: int) -> RecentRows | None:
        """Wait for the read that is under way, or begin one that answers `after`."""
        read = self._reads.get(view.drive_id)
        if read is None:
            read = asyncio.create_task(self._read(view, max(0, min(after, view.tail) - _EARLIER)))
            self._reads[view.drive_id] = read
            read.add_done_callback(partial(self._end_read, view.drive_id))
        return await asyncio.shield(read)  # a client that disconnects does not end the read of the others

    def _end_read(self, drive_id: str, read: asyncio.Task[RecentRows | None]) -> None:
        del self._reads[drive_id]
        if not read.cancelled():
            read.exception()  # the clients that wait for it get it; there may be none left

    async def _read(self, view: DriveView, after: int) -> RecentRows | None:
        """Read the rows after a sequence and keep them; None if rows that arrived meanwhile are missing."""
        recent = RecentRows(view.snapshot_version[0], after)
        self._recent[view.drive_id] = recent
        try:
            found = await self._rows(view, after)
            frames = await self._to_frames(view, found)
        except BaseException:
            self.forget(view)
            raise
        rows = [
            Row(recent.epoch, row["sequence"], row["sequence"], frame)
            for row, frame in zip(found, frames, strict=True)
        ]
        kept_until = asyncio.get_running_loop().time() + KEPT_S
        if self._recent.get(view.drive_id) is recent and recent.complete(rows, kept_until):
            return recent
        self.forget(view)
        return None

    async def _rows(self, view: DriveView, after: int) -> list[Mapping[str, Any]]:
        """The log after a sequence. Raises `NotReplayed` if it is longer than what is replayed."""
        rows: list[Mapping[str, Any]] = []
        while len(rows) <= MAX_REPLAYED + _EARLIER:
            page = await self._page(view, rows[-1]["sequence"] if rows else after)
            rows += page
            if len(page) < _PAGE:
                return rows
        raise NotReplayed(after)

    async def _page(self, view: DriveView, after: int) -> Sequence[Mapping[str, Any]]:
        path, query = f"/v1/drives/{view.drive_id}/events", f"after={after}&limit={_PAGE}"
        reply = await self._leaderboard.request("GET", path, headers=self._caller_headers, query=query)
        if reply.status != 200:
            raise ServiceUnavailable(f"{path} answered {reply.status}")
        rows: Sequence[Mapping[str, Any]] = reply.json()["data"]
        return rows
