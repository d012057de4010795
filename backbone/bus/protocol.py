"""The event bus: append-only topics of twelve partitions, each in order, read by groups.

`backbone.bus.sqlite` and `backbone.bus.kafka` implement it with the same guarantees; one test suite checks
both (`tests/backbone/test_bus.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import count
from typing import Final, Literal, NamedTuple, Protocol

PARTITIONS: Final = 12
"""Partitions of every topic. The number never changes, so a drive has the same one in each topic."""

COMPACTED: Final = frozenset({"snapshots"})
"""Topics that keep only the newest message of a key."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Message(NamedTuple):
    """A message to publish. `id` is the event's and never changes: a repeat is recognised by it."""

    topic: str
    key: str
    id: str
    name: str
    value: bytes
    traceparent: str | None = None
    watermark: datetime | None = None
    """Everything committed before this moment is on this partition, up to and including this message."""


class Record(NamedTuple):
    """A message as it is read. A record with an empty `name` carries nothing but its watermark.

    `published_at` is when its producer handed it to the bus, in seconds since 1970 by that producer's clock;
    0 where it is unknown.
    """

    partition: Partition
    offset: int
    key: str
    id: str
    name: str
    value: bytes
    traceparent: str | None = None
    watermark: datetime | None = None
    published_at: float = 0.0


Positions = Mapping[Partition, int]
"""The offset to read next, by partition."""

LoadPositions = Callable[[Sequence[Partition]], Awaitable[Positions]]
"""Loads positions of newly assigned partitions; those it leaves out are read from the beginning."""


class Subscription(Protocol):
    """One member of a group, or (`EventBus.follow`) a reader of everything."""

    async def fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """At least one record, in order within each partition, or none once `timeout_s` is over."""
        ...

    async def seek(self, positions: Positions) -> None:
        """Read on from these offsets."""
        ...

    async def commit(self, positions: Positions) -> None:
        """Store the group's positions on the bus; those in the consumer's database take precedence."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """The partitions this member reads at present."""
        ...

    def lag(self) -> Mapping[Partition, int]:
        """Records published and not yet fetched, by partition of this member, as of the last fetch."""
        ...

    async def group_lag(self) -> Mapping[Partition, int]:
        """Records published before the call and not yet passed, by partition of the whole group.

        A record is passed once this member has fetched it or another has committed it.
        Raises `BusUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Leave the group; its other members take the partitions over."""
        ...


class EventBus(Protocol):
    """Where services publish and consume events."""

    async def publish(self, messages: Sequence[Message], *, lossy: bool = False) -> None:
        """Append, in order; durable when it returns, unless `lossy` (a power cut may undo it).

        Raises `BusUnavailable` when not all are known to be stored; some may have been.
        """
        ...

    async def publish_watermarks(self, topic: str, at: datetime, partitions: Sequence[int]) -> None:
        """Publish that everything committed before `at` is already on these partitions."""
        ...

    async def subscribe(
        self, group: str, topics: Sequence[str], positions: LoadPositions | None = None
    ) -> Subscription:
        """Join `group`; its members share the partitions of `topics`."""
        ...

    async def follow(self, topics: Sequence[str], since: Literal["beginning", "end"]) -> Subscription:
        """Read all partitions of `topics`, outside any group."""
        ...

    async def close(self) -> None:
        """Close every subscription and connection."""
        ...


class BusUnavailable(Exception):
    """The bus did not acknowledge a message, or cannot be reached; the caller tries again later."""


def partition_of(key: str) -> int:
    """The partition of `key`, the same in every topic and on every bus."""
    return zlib.crc32(key.encode()) % PARTITIONS


@lru_cache(maxsize=PARTITIONS)
def key_of_partition(partition: int) -> str:
    """A key whose partition is `partition`; always the same key."""
    return next(key for key in (f"~{n}" for n in count()) if partition_of(key) == partition)
