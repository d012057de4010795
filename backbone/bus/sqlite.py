"""The embedded bus: an append-only SQLite table with topics, partitions, offsets and positions.

For one process on one machine; beyond that use Kafka. Watermarks are kept in memory only: this process both
publishes and consumes them, and a relay repeats them every second.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from backbone.bus.protocol import (
    COMPACTED,
    PARTITIONS,
    BusUnavailable,
    LoadPositions,
    Message,
    Partition,
    Positions,
    Record,
    partition_of,
)
from backbone.database.database import Synchronous
from backbone.periodic import BATCH

KEEP_S: Final = 24 * 3600
"""How long a record stays once every group has read it."""

PRUNE_EVERY_S: Final = 600.0


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    topic TEXT, partition INTEGER, offset INTEGER, key TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
    value BLOB NOT NULL, traceparent TEXT, at REAL NOT NULL,
    PRIMARY KEY (topic, partition, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends (
    topic TEXT, partition INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    "group" TEXT, topic TEXT, partition INTEGER, next INTEGER NOT NULL,
    PRIMARY KEY ("group", topic, partition)
) WITHOUT ROWID;
"""

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADVANCE: Final = "INSERT INTO ends VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next"
_DELETE: Final = "DELETE FROM records WHERE topic = ? AND partition = ? AND offset = ?"
_READ: Final = (
    "SELECT offset, key, id, name, value, traceparent, at FROM records "
    "WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?"
)


class SqliteBus:
    """An `EventBus` in one SQLite file, owned by this process alone.

    Every call runs on the event loop and never suspends between BEGIN and COMMIT, so no lock is
    needed: what is durable commits on one connection, what may be lost on another. Of the topics in
    `compacted` a record is dropped as soon as a newer one of its key is stored.
    """

    def __init__(
        self, file: Path, *, synchronous: Synchronous = "FULL", compacted: frozenset[str] = COMPACTED
    ) -> None:
        self._compacted = compacted
        self._durable = _connect(file, synchronous)
        self._lossy = _connect(file, "OFF" if synchronous == "OFF" else "NORMAL")
        self._durable.executescript(_SCHEMA)
        self._ends: dict[Partition, int] = {
            Partition(topic, number): following
            for topic, number, following in self._durable.execute("SELECT * FROM ends")
        }
        self._newest = {
            (topic, key): offset
            for topic in compacted
            for key, offset in self._durable.execute(
                "SELECT key, max(offset) FROM records WHERE topic = ? GROUP BY key", (topic,)
            )
        }
        self._watermarks: dict[Partition, tuple[datetime, int]] = {}
        self._members: defaultdict[str, list[SqliteSubscription]] = defaultdict(list)

    async def publish(self, messages: Sequence[Message], *, lossy: bool = False) -> None:
        """Append `messages` in one commit; see `EventBus.publish`."""
        connection = self._lossy if lossy else self._durable
        ends: dict[Partition, int] = {}
        newest: dict[tuple[str, str], int] = {}
        rows, outdated = [], []
        now = time.time()
        for message in messages:
            partition = Partition(message.topic, partition_of(message.key))
            offset = ends.get(partition, self._ends.get(partition, 0))
            ends[partition] = offset + 1
            if message.topic in self._compacted:
                known_as = message.topic, message.key
                if (older := newest.get(known_as, self._newest.get(known_as))) is not None:
                    outdated.append((*partition, older))
                newest[known_as] = offset
            rows.append((*partition, offset, message.key, message.id, message.name, message.value,
                         message.traceparent, now))  # fmt: skip
        try:
            with _commit(connection):
                connection.executemany(_INSERT, rows)
                connection.executemany(_ADVANCE, [(*partition, end) for partition, end in ends.items()])
                connection.executemany(_DELETE, outdated)
        except sqlite3.Error as error:  # a full or vanished disk
            raise BusUnavailable(str(error)) from error
        # Only after the commit: a rolled-back offset is assigned again, and that message would delete itself.
        self._ends |= ends
        self._newest |= newest
        for message in messages:
            if message.watermark is not None:
                partition = Partition(message.topic, partition_of(message.key))
                self._watermarks[partition] = (message.watermark, self._ends[partition])
        self._wake({partition.topic for partition in ends})

    async def publish_watermarks(self, topic: str, at: datetime, partitions: Sequence[int]) -> None:
        """See `EventBus.publish_watermarks`."""
        for number in partitions:
            partition = Partition(topic, number)
            self._watermarks[partition] = (at, self._ends.get(partition, 0))
        self._wake({topic})

    async def subscribe(
        self, group: str, topics: Sequence[str], positions: LoadPositions | None = None
    ) -> SqliteSubscription:
        """See `EventBus.subscribe`."""
        member = SqliteSubscription(self, topics, group, positions or self.position_loader(group))
        self._members[group].append(member)
        self._rebalance(group)
        return member

    async def follow(self, topics: Sequence[str], since: Literal["beginning", "end"]) -> SqliteSubscription:
        """See `EventBus.follow`."""
        start = dict(self._ends) if since == "end" else {}

        async def begin(partitions: Sequence[Partition]) -> Positions:
            return {partition: start.get(partition, 0) for partition in partitions}

        member = SqliteSubscription(self, topics, None, begin)
        self._members[f"~{id(member)}"].append(member)
        member.assign(_partitions(topics))
        return member

    async def close(self) -> None:
        """Close the file."""
        self._durable.close()
        self._lossy.close()

    async def prune(self) -> int:
        """Drop up to a batch of records that every group has read and that are a day old; how many."""
        return self.drop_old(time.time() - KEEP_S, BATCH)

    def drop_old(self, older_than: float, at_most: int) -> int:
        """Drop the oldest records of each partition, from before `older_than` and read by every group.

        `older_than` is in seconds since 1970. At most `at_most` in all; how many there were.
        """
        left = at_most
        ends = self._durable.execute(
            "SELECT topic, partition, min(next) FROM positions GROUP BY 1, 2"
        ).fetchall()
        for topic, number, read in ends:
            (first,) = self._durable.execute(
                "SELECT min(offset) FROM records WHERE topic = ? AND partition = ?", (topic, number)
            ).fetchone()
            if first is None:
                continue
            with _commit(self._lossy):
                gone = self._lossy.execute(
                    "DELETE FROM records WHERE topic = ? AND partition = ? AND offset < ? AND at < ?",
                    (topic, number, min(read, first + left), older_than),
                )
            left -= gone.rowcount
            if left <= 0:
                break
        return at_most - left

    # Called by subscriptions.

    def end(self, partition: Partition) -> int:
        """The offset the next record of `partition` will have."""
        return self._ends.get(partition, 0)

    def watermark(self, partition: Partition) -> tuple[datetime, int] | None:
        """The newest watermark and the offset below which it holds."""
        return self._watermarks.get(partition)

    def read(self, partition: Partition, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on."""
        rows = self._durable.execute(_READ, (*partition, offset, limit))
        return [
            Record(partition, offset, key, id, name, value, trace, None, at)
            for offset, key, id, name, value, trace, at in rows
        ]

    def store_positions(self, group: str, positions: Positions) -> None:
        """Store a group's positions; they may be repeated, so they may be lost."""
        rows = [(group, *partition, following) for partition, following in positions.items()]
        with _commit(self._lossy):
            self._lossy.executemany(
                "INSERT INTO positions VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
                rows,
            )

    def position_loader(self, group: str) -> LoadPositions:
        """The function that loads the positions a group has committed."""

        async def load(partitions: Sequence[Partition]) -> Positions:
            rows = self._durable.execute(
                'SELECT topic, partition, next FROM positions WHERE "group" = ?', (group,)
            )
            known = {Partition(topic, number): following for topic, number, following in rows}
            return {partition: known[partition] for partition in partitions if partition in known}

        return load

    def remove_member(self, member: SqliteSubscription) -> None:
        """Remove a member and assign its partitions to the others."""
        for group, members in list(self._members.items()):
            if member in members:
                members.remove(member)
                self._rebalance(group)
            if not members:
                del self._members[group]

    def _rebalance(self, group: str) -> None:
        members = self._members[group]
        for topic in {topic for member in members for topic in member.topics}:
            takers = [member for member in members if topic in member.topics]
            for place, member in enumerate(takers):
                share = range(PARTITIONS * place // len(takers), PARTITIONS * (place + 1) // len(takers))
                member.assign([Partition(topic, number) for number in share], topic)

    def _wake(self, topics: set[str]) -> None:
        for members in self._members.values():
            for member in members:
                if not topics.isdisjoint(member.topics):
                    member.news.set()


class SqliteSubscription:
    """A member of a group on the embedded bus; see `Subscription`."""

    def __init__(self, bus: SqliteBus, topics: Sequence[str], group: str | None, load: LoadPositions) -> None:
        self._bus = bus
        self.topics = frozenset(topics)
        self._group = group
        self._load = load
        self._assigned: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        self._marked: dict[Partition, datetime] = {}
        self.news = asyncio.Event()

    def assign(self, partitions: Iterable[Partition], topic: str | None = None) -> None:
        """Take exactly these partitions (of `topic`); positions are loaded before the next fetch."""
        others = {held for held in self._assigned if topic is not None and held.topic != topic}
        self._assigned = others | set(partitions)
        self._next = {held: offset for held, offset in self._next.items() if held in self._assigned}
        self.news.set()

    async def fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """See `Subscription.fetch`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self.news.clear()
            await self._load_new_positions()
            if records := self._collect(max_records):
                return records
            try:
                async with asyncio.timeout_at(deadline):
                    await self.news.wait()
            except TimeoutError:
                return []

    async def _load_new_positions(self) -> None:
        fresh = sorted(self._assigned - self._next.keys())
        if fresh:
            known = await self._load(fresh)
            self._next |= {partition: known.get(partition, 0) for partition in fresh}

    def _collect(self, max_records: int) -> list[Record]:
        records: list[Record] = []
        for partition, offset in self._next.items():
            if len(records) >= max_records:
                self.news.set()
                break
            if offset < self._bus.end(partition):
                found = self._bus.read(partition, offset, max_records - len(records))
                # A compacted topic has gaps: past the last record there is nothing but the end.
                self._next[partition] = found[-1].offset + 1 if found else self._bus.end(partition)
                records += found
            records += self._watermark(partition)
        return records

    def _watermark(self, partition: Partition) -> list[Record]:
        mark = self._bus.watermark(partition)
        if mark is None or self._marked.get(partition) == mark[0] or self._next[partition] < mark[1]:
            return []
        self._marked[partition] = mark[0]
        return [Record(partition, self._next[partition] - 1, "", "", "", b"", watermark=mark[0])]

    async def seek(self, positions: Positions) -> None:
        """See `Subscription.seek`."""
        self._next |= {held: offset for held, offset in positions.items() if held in self._assigned}
        self.news.set()

    async def commit(self, positions: Positions) -> None:
        """See `Subscription.commit`."""
        if self._group is not None:
            self._bus.store_positions(self._group, positions)

    def assignment(self) -> frozenset[Partition]:
        """See `Subscription.assignment`."""
        return frozenset(self._assigned)

    def lag(self) -> Mapping[Partition, int]:
        """See `Subscription.lag`."""
        return {held: self._bus.end(held) - offset for held, offset in self._next.items()}

    async def group_lag(self) -> Mapping[Partition, int]:
        """See `Subscription.group_lag`."""
        fresh = [one for one in _partitions(self.topics) if one not in self._next]
        known = await self._bus.position_loader(self._group)(fresh) if fresh and self._group else {}
        read = {one: known.get(one, 0) for one in fresh} | self._next
        return {one: self._bus.end(one) - offset for one, offset in read.items()}

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._bus.remove_member(self)


def _partitions(topics: Iterable[str]) -> list[Partition]:
    return [Partition(topic, number) for topic in topics for number in range(PARTITIONS)]


def _connect(file: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


class _commit:
    """BEGIN IMMEDIATE … COMMIT around a block that never suspends; ROLLBACK where it raises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")
