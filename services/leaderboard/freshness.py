"""What the snapshots wait for: which drives changed, and up to which moment every input was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from backbone.bus.protocol import PARTITIONS, Partition
from backbone.database.transaction import Transaction, after_commit
from backbone.messaging.consumer import Handler, Handlers

INPUTS: Final = ("pledges", "payments")
Assignment = tuple[int, ...]


class ChangedDrives:
    """The drives that changed since they were last looked at."""

    def __init__(self) -> None:
        self._drives: dict[str, float] = {}
        self.news = asyncio.Event()

    def mark(self, drive_ids: Iterable[str]) -> None:
        """Note that these changed."""
        now = asyncio.get_running_loop().time()
        for drive_id in drive_ids:
            self._drives.setdefault(drive_id, now)
        self.news.set()

    def unmark(self, drive_id: str) -> float | None:
        """Note that this one is about to be looked at; since when it has waited, on the loop's clock."""
        return self._drives.pop(drive_id, None)

    def now(self) -> list[str]:
        """Those that changed, the longest waiting first."""
        return list(self._drives)

    def after(self, handlers: Handlers) -> Handlers:
        """`handlers` that mark the drives of their events once they are committed."""
        return {kind: self._marking(handle) for kind, handle in handlers.items()}

    def _marking(self, handle: Handler) -> Handler:
        async def handle_and_mark(events: Sequence[Any], session: Transaction) -> None:
            await handle(events, session)
            touched = {event.drive_id for event in events}
            after_commit(session, lambda: self.mark(touched))

        return handle_and_mark


class Freshness:
    """The moment up to which all published events are stored: the lowest of the inputs' watermarks."""

    def __init__(
        self,
        watermarks: Mapping[Partition, datetime],
        owned_partitions: Callable[[], Mapping[Partition, int]],
    ) -> None:
        self._watermarks = watermarks
        self._owned = owned_partitions

    def of(self, partition: int) -> datetime | None:
        """For this partition's drives; None if another process owns it, or an input lacks a watermark."""
        return self._lowest(partition) if partition in self.assignments() else None

    def all(self) -> dict[int, datetime]:
        """By partition, those that are known."""
        return {number: mark for number in self.assignments() if (mark := self._lowest(number)) is not None}

    def assignments(self) -> dict[int, Assignment]:
        """The partitions of which this process reads every input, each with what changes when it was lost."""
        owned_partitions = self._owned()
        assignments = {
            n: tuple(owned_partitions.get(Partition(topic, n), 0) for topic in INPUTS)
            for n in range(PARTITIONS)
        }
        return {number: assignment for number, assignment in assignments.items() if all(assignment)}

    def _lowest(self, partition: int) -> datetime | None:
        marks = [self._watermarks.get(Partition(topic, partition)) for topic in INPUTS]
        known = [mark for mark in marks if mark is not None]
        return min(known) if len(known) == len(INPUTS) else None
