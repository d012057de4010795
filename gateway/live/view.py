"""One drive as the gateway shows it: its newest figures, their serialised bytes, and its connections."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from backbone.bus.protocol import partition_of
from backbone.clock import Clock, rfc3339
from gateway.live.connection import Row, SseConnection, frame
from gateway.overload.ladder import Step

REBUILD_S: Final = 1.0
"""A heartbeat alone changes the bytes at most this often."""
FRAMES_PER_S: Final = 18.0
FRAMES_AT_ONCE: Final = 3
"""`totals` frames of a drive: the average per second, and the largest burst. Together they never exceed the
20 per second that the API promises, and at ordinary rates a frame seldom waits."""
_LISTS: Final = ("leaders", "recent")
_ON_SCREEN: Final = ("pinned", "alerts")
"""The members that the totals of several drives do without: lists, and what has texts of donors."""
ROWS_LATE_S: Final = 5.0
"""Figures and the rows of the log that they cover come separately: how much later rows may be before they are
missing. Twice as long at most, since the figures are looked at in this interval."""
MAX_UNSHOWN: Final = 10_000
"""Donations of a drive whose delay until they are shown is measured at the same time."""

State = Literal["live", "catching_up", "frozen"]
SnapshotVersion = tuple[int, int, int]


class TokenBucket:
    """A token bucket: on average `per_s`, in bursts of at most `at_once`."""

    def __init__(self, per_s: float, at_once: int) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._left = float(at_once)
        self._at = float("-inf")

    def due(self, now: float) -> float:
        """When the next one is allowed; `now` if it is allowed immediately."""
        return now + max(0.0, 1.0 - self._left_at(now)) / self._per_s

    def spend(self, now: float) -> None:
        """Take a token at `now`."""
        self._left, self._at = self._left_at(now) - 1.0, now

    def _left_at(self, now: float) -> float:
        return min(float(self._at_once), self._left + (now - self._at) * self._per_s)


class FreshnessSource(Protocol):
    """The clock, how complete a drive's figures are, and what they omit under overload."""

    clock: Clock
    step: Step

    def as_of(self, view: DriveView) -> datetime:
        """The moment up to which everything is included in the drive's figures."""
        ...


class DriveView:
    """One drive: its newest snapshot and the bytes made of it."""

    def __init__(self, drive_id: str, slug: str) -> None:
        self.drive_id = drive_id
        self.slug = slug
        self.partition = partition_of(drive_id)
        self.snapshot_version: SnapshotVersion = (1, 0, 0)
        self.as_of: datetime | None = None
        self.milestones: Sequence[Mapping[str, Any]] = ()
        self.is_placeholder = True  # no snapshot yet: what is shown is what pledges knows of it
        self.placeholder_until = 0.0
        self.tail = 0  # the highest sequence received on the drive's log
        self.connections: set[SseConnection] = set()
        self.rows: list[Row] = []  # of the log, to be sent with the next push
        self.unshown: deque[tuple[int, int, datetime]] = deque(maxlen=MAX_UNSHOWN)
        self.totals_due_since: float | None = None
        self.rows_at = float("-inf")
        self.totals_at = float("-inf")
        self.frames = TokenBucket(FRAMES_PER_S, FRAMES_AT_ONCE)
        self.pushed: tuple[State, Step] | None = None
        self.rows_push: asyncio.TimerHandle | None = None
        self.totals_push: asyncio.TimerHandle | None = None
        self._marks = (0.0, (0, 0), (0, 0))
        self._brief, self._leaders, self._recent = b"", b"", b""
        self._built: dict[str, bytes] = {}
        self._built_at: datetime | None = None
        self._built_as: tuple[State, Step] | None = None

    def take(
        self, snapshot_version: SnapshotVersion, as_of: datetime | None, totals: Mapping[str, Any]
    ) -> None:
        """Replace the figures; they are serialised when they are next read."""
        self.snapshot_version, self.as_of = snapshot_version, as_of
        self.tail = max(self.tail, snapshot_version[1])
        self._brief = _members(
            {name: value for name, value in totals.items() if name not in (*_LISTS, *_ON_SCREEN)}
        )
        self._on_screen = _members({name: totals[name] for name in _ON_SCREEN if name in totals})
        self._leaders, self._recent = (
            _members({name: totals[name]} if name in totals else {}) for name in _LISTS
        )
        self.milestones = totals.get("milestones") or ()
        self._built_at = None

    def rows_due(self, now: float) -> tuple[int, int]:
        """The (epoch, sequence) that figures have covered for `ROWS_LATE_S`; to be called regularly."""
        at, newer, older = self._marks
        if now - at >= ROWS_LATE_S:
            self._marks = (now, self.snapshot_version[:2], newer)
            return newer
        return older

    def etag(self, state: State, step: Step) -> str:
        """`W/"<epoch>.<sequence>.<revision>.<state>"`, and `-<step>` after it while something gives way."""
        epoch, sequence, revision = self.snapshot_version
        shed = f"-{step.word}" if step else ""
        return f'W/"{epoch}.{sequence}.{revision}.{state}{shed}"'

    def bytes(
        self, kind: Literal["full", "brief", "gzip", "frame"], state: State, freshness: FreshnessSource
    ) -> bytes:
        """The drive's totals: whole, without leaders and recent, gzipped, or as a live frame."""
        now = freshness.clock.now()
        stale = self._built_at is None or (now - self._built_at).total_seconds() >= REBUILD_S
        if stale or (state, freshness.step) != self._built_as:
            self._built, self._built_at, self._built_as = {}, now, (state, freshness.step)
            as_of = freshness.as_of(self)
            lag_ms = max(0, round((now - as_of).total_seconds() * 1000))
            epoch, sequence, _ = self.snapshot_version
            tail = (
                f'"epoch":{epoch},"sequence":{sequence},"as_of":"{rfc3339(as_of)}",'
                f'"state":"{state}","lag_ms":{lag_ms}{_degraded(freshness.step)}}}'
            ).encode()
            recent = b'"recent":[],' if freshness.step >= Step.RECENT else self._recent
            self._built["full"] = b"".join((b"{", self._brief, self._on_screen, self._leaders, recent, tail))
            self._built["brief"] = b"".join((b"{", self._brief, tail))
        if kind not in self._built:
            full = self._built["full"]
            self._built[kind] = gzip.compress(full, 5, mtime=0) if kind == "gzip" else frame("totals", full)
        return self._built[kind]


def _members(values: Mapping[str, Any]) -> bytes:
    """The members of a JSON object, each with a comma after it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return (text[1:-1] + ("," if values else "")).encode("utf-8", "replace")


def _degraded(step: Step) -> str:
    """The member that names what gives way; absent while nothing does."""
    words = ",".join(f'"{one.word}"' for one in Step if 0 < one <= step)
    return f',"degraded":[{words}]' if words else ""
