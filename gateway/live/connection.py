"""Server-sent events of a drive: one frame shared by all clients, and a queue for each connection.

Guarantees: `totals` frames never go back in (epoch, sequence, revision), and a client that reads slowly
skips older ones. `donation` and `milestone` frames arrive in the order of the drive's log, each once per
connection; if rows were missed, a `gap` precedes the next one, or comes once the totals have covered them
for a while. The donation of sequence n may arrive before the `totals` that cover n. Source of the format:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter

from backbone.http.pushed_response import PushedResponse, chunk

KEEPALIVE_S: Final = 15.0
STUCK_S: Final = 5.0
MAX_QUEUED_BYTES: Final = 1024 * 1024
"""Bytes of donations a client may be behind before it is disconnected (they are shared, not copied)."""
MAX_ROWS: Final = 250
"""Rows of a drive's log sent at once. Of more rows the newest are sent, and a `gap` for the others."""
_COMMENT: Final = b":\n\n"
_DRAIN: Final = b"event: drain\ndata: {}\n\n"

_DROPPED = Counter(
    "ataa_live_dropped_total", "Live streams ended because the client read too slowly.", ["why"]
)

log = structlog.get_logger()


def frame(event: str, data: bytes, identifier: int | None = None) -> bytes:
    """One server-sent event; `data` is JSON without line breaks."""
    head = b"" if identifier is None else b"id: %d\n" % identifier
    return b"event: %s\n%sdata: %s\n\n" % (event.encode(), head, data)


def event_frame(
    row: Mapping[str, Any], display_texts: Mapping[str, Any], milestones: Sequence[Mapping[str, Any]] = ()
) -> bytes:
    """The frame of a row of the drive's log, empty for rows that streams do not show.

    `milestones` are the drive's; they have the title of the one that a row reaches.
    """
    if row["type"] == "donation.counted":
        texts = display_texts.get(row["pledge"]) or {}
        donation = {"id": f"don_{str(row['payment']).partition('_')[2]}", "name": texts.get("name"),
                    "message": texts.get("message"), "reporting_amount": row["amount"]}  # fmt: skip
        return frame("donation", _json({**donation, **row}), row["sequence"])
    if row["type"] == "milestone.reached":
        titles = (one["title"] for one in milestones if one["amount"] == row["amount"])
        milestone = {"title": next(titles, None), "reached_at": row["at"]}
        return frame("milestone", _json({**milestone, **row}), row["sequence"])
    return b""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Row(NamedTuple):
    """A row of a drive's log as streams send it, or a `gap` in place of rows `first` to `last`.

    `shown` is empty for rows that have no frame.
    """

    epoch: int
    first: int
    last: int
    shown: bytes


def newest(rows: Sequence[Row], drive: str) -> list[Row]:
    """The last `MAX_ROWS` of `rows`, with one `gap` in place of earlier ones."""
    if len(rows) <= MAX_ROWS:
        return list(rows)
    passed, kept = rows[:-MAX_ROWS], rows[-MAX_ROWS:]
    gap = gap_frame(drive, passed[0].first - 1)
    return [Row(passed[-1].epoch, passed[0].first, passed[-1].last, gap), *kept]


class Batch:
    """What one push sends: rows of the log, then the totals; joined once for all up-to-date clients."""

    __slots__ = ("_chunk", "_is_unbroken", "at", "ends", "first", "rows", "shown", "totals")

    def __init__(self, rows: Sequence[Row], totals: bytes) -> None:
        self.at = asyncio.get_running_loop().time()
        self.rows = rows
        self.totals = totals
        self.shown = b"".join(row.shown for row in rows)
        self.first = (rows[0].epoch, rows[0].first) if rows else None
        self.ends = (rows[-1].epoch, rows[-1].last) if rows else None
        self._is_unbroken = all(
            (row.epoch, row.first) == (before.epoch, before.last + 1) for before, row in pairwise(rows)
        )
        self._chunk = b""

    @property
    def chunk(self) -> bytes:
        """The bytes that all up-to-date clients share; empty if nothing is shown."""
        if not self._chunk and (self.shown or self.totals):
            self._chunk = chunk(self.shown + self.totals)
        return self._chunk

    def follows(self, last: tuple[int, int] | None) -> bool:
        """Whether the rows continue the log of a client that has received it up to `last`.

        They do not if some of them are repeated or missing: the bus may repeat rows within one read.
        """
        if self.first is None or last is None:
            return self._is_unbroken
        return self._is_unbroken and last == (self.first[0], self.first[1] - 1)


class SseConnection:
    """One client's connection: what is still to be sent, and since when the client has not read.

    A push is written to the connection at once. While the client does not read, only the newest of `totals`
    is queued, and donations in order, at most `MAX_QUEUED_BYTES` bytes. `closed` is called once.
    """

    __slots__ = (
        "_blocked_since",
        "_closed",
        "_events",
        "_held",
        "_last",
        "_response",
        "_sent_at",
        "_totals",
        "_waiting",
        "drive",
        "ended",
    )

    def __init__(self, drive: str, response: PushedResponse, closed: Callable[[SseConnection], None]) -> None:
        self.drive = drive
        self.ended = False
        """Whether a drain has begun or the connection is lost."""
        self._response = response
        self._closed: Callable[[SseConnection], None] | None = closed
        self._events: list[bytes] = []
        self._waiting = 0
        self._held: list[Row] | None = None
        self._last: tuple[int, int] | None = None
        self._blocked_since: float | None = None
        self._sent_at = asyncio.get_running_loop().time()
        self._totals: bytes | None = None
        response.writer = self

    def push(self, batch: Batch) -> None:
        """Send rows and totals; older totals that are still queued are discarded."""
        if self.ended:
            return
        if self._held is None and not self._response.is_paused and batch.follows(self._last):
            self._last = batch.ends or self._last
            if batch.chunk:
                self._response.write(batch.chunk)
                self._sent_at = batch.at
            return
        if batch.totals:
            self._totals = batch.totals
        if self._held is not None:
            self._held.extend(batch.rows)
        elif batch.follows(self._last):
            self._last = batch.ends or self._last
            self._queue(batch.shown)
        else:
            for row in batch.rows:
                self._offer(row)
        self.flush()

    def _offer(self, row: Row) -> None:
        """Queue a row unless the client has it, after a `gap` if rows before it were missed."""
        if self._last is not None and self._last[0] == row.epoch:
            if row.last <= self._last[1]:
                return
            if row.first > self._last[1] + 1:
                self._queue(gap_frame(self.drive, self._last[1]))
        self._last = (row.epoch, row.last)
        self._queue(row.shown)

    def begin(self, last: tuple[int, int]) -> None:
        """Send what is queued, then the rows after `last` (epoch, sequence), which that covers."""
        self._last = last
        self.flush()

    def report_missing(self, due: tuple[int, int]) -> None:
        """Send a `gap` unless the log was sent up to `due` (epoch, sequence)."""
        if self._held is None and self._last is not None and self._last[0] == due[0] and self._last < due:
            self._queue(gap_frame(self.drive, self._last[1]))
            self._last = due
            self.flush()

    def hold(self) -> None:
        """Send what is queued, and hold back new rows of the log while missed rows are replayed."""
        self._held = []
        self.flush()

    def release(self, last: tuple[int, int] | None) -> None:
        """Send what is queued and continue after `last` (epoch, sequence), up to which rows were replayed."""
        held, self._held = self._held or [], None
        self._last = last
        for row in held:
            self._offer(row)
        self.flush()

    def replay(self, shown: bytes) -> None:
        """Queue a frame for this client only."""
        self._events.append(shown)

    def drain(self) -> None:
        """End the stream with `event: drain` once everything queued is sent."""
        self.ended = True
        self.flush()

    def check_timeouts(self, now: float) -> None:
        """Disconnect a client that has not read for too long; send a keepalive on an idle stream."""
        if self._blocked_since is not None:
            if now - self._blocked_since >= STUCK_S:
                self._drop("stuck")
        elif now - self._sent_at >= KEEPALIVE_S:
            self._events.append(_COMMENT)
            self.flush()

    def flush(self) -> None:
        """Send what is queued if the client reads; else note since when it waits."""
        if self._closed is None:
            return
        now, response = asyncio.get_running_loop().time(), self._response
        if not response.is_paused:
            self._blocked_since = None
            if whole := self._take():
                response.write(chunk(whole))
                self._sent_at = now
        if response.is_paused:
            if self._blocked_since is None and (self._events or self._totals is not None or self.ended):
                self._blocked_since = now
        elif self.ended:
            response.end(chunk(_DRAIN))
            self.lost()

    def lost(self) -> None:
        """Nothing more can be sent."""
        self.ended = True
        self._events.clear()
        self._totals = self._held = self._blocked_since = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self)

    def _take(self) -> bytes:
        """Everything queued. Donations go before totals, so that within one write the totals cover them."""
        whole = b"".join((*self._events, self._totals or b""))
        self._events.clear()
        self._totals, self._waiting = None, 0
        return whole

    def _queue(self, shown: bytes) -> None:
        if not shown:
            return
        if self._waiting > MAX_QUEUED_BYTES:
            self._drop("behind")
            return
        self._waiting += len(shown)
        self._events.append(shown)

    def _drop(self, why: str) -> None:
        """Reset the connection of a client that reads too slowly."""
        if self._closed is None:
            return
        _DROPPED.labels(why).inc()
        self._response.abort()
        self.lost()


def gap_frame(drive: str, after: int) -> bytes:
    """The frame that reports missed rows after sequence `after`, with the address to read them."""
    return frame("gap", _json({"after": after, "events": f"/v1/drives/{drive}/events?after={after}"}))
