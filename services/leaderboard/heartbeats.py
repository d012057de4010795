"""Heartbeats: up to which moment the published snapshots of a partition are complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from backbone.bus.protocol import EventBus, key_of_partition
from backbone.contracts import Heartbeat
from backbone.messaging.lossy import publish_lossy
from services.leaderboard.freshness import Assignment, ChangedDrives, Freshness


class Heartbeats:
    """Publishes the watermarks of this process's partitions, after the snapshots that they cover.

    Watermarks are read by `begin`. Every drive that had changed by then has to be published before them.
    """

    def __init__(self, bus: EventBus, changed: ChangedDrives, freshness: Freshness) -> None:
        self._bus = bus
        self._changed = changed
        self._freshness = freshness
        self._watermarks: dict[int, datetime] = {}
        self._covered: set[str] = set()
        """Drives to publish before `_watermarks`."""

    def begin(self, assignments: Mapping[int, Assignment]) -> None:
        """Read the watermarks of these partitions, unless earlier ones still wait for snapshots."""
        if not self._covered:
            current, marks = self._freshness.assignments(), self._freshness.all()
            self._watermarks = {n: mark for n, mark in marks.items() if assignments.get(n) == current[n]}
            self._covered = set(self._changed.now())

    def release(self, drive_ids: Iterable[str]) -> None:
        """No longer wait for these drives: they are published, or another process owns them."""
        self._covered.difference_update(drive_ids)

    async def publish(self) -> None:
        """Publish the watermarks read, unless a drive that they cover is still to be published.

        Raises `BusUnavailable`; the next call then publishes them.
        """
        if self._covered or not self._watermarks:
            return
        await publish_lossy(
            self._bus,
            [
                Heartbeat.of_valid(slot=key_of_partition(number), partition=number, as_of=as_of)
                for number, as_of in self._watermarks.items()
            ],
        )
        self._watermarks = {}
