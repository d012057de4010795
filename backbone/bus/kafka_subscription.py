"""Reading from Kafka: a member of a consumer group, or a reader of everything.

Positions come from the consumer's database: newly assigned partitions are paused until they are loaded.
Offsets committed to Kafka only serve to compute the lag. Records are read ahead by `ReadPump`; what it holds
of a partition is dropped whenever the position is set anew or the partition is revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from backbone.bus.aiokafka_internals import CLOSE_TIMEOUT_S, close_consumer, committed_offsets, within
from backbone.bus.protocol import (
    PARTITIONS,
    BusUnavailable,
    LoadPositions,
    Partition,
    Positions,
    Record,
)
from backbone.bus.read_pump import ReadPump
from backbone.database.columns import from_microseconds

REQUEST_TIMEOUT_S: Final = 10.0
"""How long a broker may take to acknowledge a batch, or to let a member in."""

LAG_ATTEMPTS: Final = 5
LAG_RETRY_S: Final = 0.1
"""Watermarks are records on Kafka: the lag is read again, so that a group is not behind for them alone."""

log = structlog.get_logger()

_EXPIRED = Counter(
    "ataa_bus_records_expired_total",
    "Records dropped by age before their group had read them.",
    ["topic"],
)


class KafkaSubscription:
    """A member of a Kafka consumer group, or a reader of everything; see `Subscription`.

    `topics` are those of a group, empty for a reader of everything.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        open_subscriptions: set[KafkaSubscription],
        prefix: str,
        topics: Sequence[str] = (),
        load: LoadPositions | None = None,
    ) -> None:
        self._consumer = consumer
        self._open_subscriptions = open_subscriptions
        open_subscriptions.add(self)
        self._prefix = prefix
        self._topics = topics
        self._load = load or self._committed
        self._joined = not topics
        self._closed = False
        self._unpositioned: frozenset[TopicPartition] = frozenset()
        self._next: dict[TopicPartition, int] = {}
        self._pump = ReadPump(consumer)

    def pause_until_positioned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hand out nothing of `assigned` until its positions have been loaded."""
        self._joined = True
        self._pump.clear()
        self._unpositioned = frozenset(assigned)
        self._next.clear()
        self._consumer.pause(*self._unpositioned)
        self._pump.changed.set()

    def release(self, revoked: Iterable[TopicPartition]) -> None:
        """Hand out nothing more of `revoked`: another member reads on, or this one after loading
        positions."""
        self._pump.drop(frozenset(revoked))

    async def fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """See `Subscription.fetch`. Raises `BusUnavailable` where the group was lost.

        Positions of new partitions are loaded here, in the caller's turn, never by the pump: the caller has
        then finished with what it was handed before.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            while True:
                await self._position_assigned()
                if records := self._to_records(self._pump.take(max_records)):
                    return records
                if self._closed:
                    raise BusUnavailable("the subscription was closed")
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._pump.changed.wait()
                except TimeoutError:
                    return []
        except (KafkaError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error

    def _to_records(self, taken: Sequence[tuple[TopicPartition, Sequence[Any]]]) -> list[Record]:
        records = []
        for partition, found in taken:
            self._next[partition] = found[-1].offset + 1
            records += [_record(self._to_partition(partition), one) for one in found]
        return records

    async def _position_assigned(self) -> None:
        while fresh := self._unpositioned:
            positions = self._to_topic_partitions(
                await self._load(sorted(self._to_partition(one) for one in fresh))
            )
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                first = await self._consumer.beginning_offsets(list(fresh))
            self._report_expired(positions, first)
            positions = {one: max(positions.get(one, 0), offset) for one, offset in first.items()}
            # Otherwise the group has rebalanced, and another member may have read on.
            if self._unpositioned is fresh:
                self._unpositioned = frozenset()
                await self.start_at({one: positions[one] for one in fresh & self._consumer.assignment()})
                self._consumer.resume(*(fresh & self._consumer.assignment()))

    def _report_expired(
        self, positions: Mapping[TopicPartition, int], first: Mapping[TopicPartition, int]
    ) -> None:
        """Report records that the topic's retention dropped before this group had read them."""
        for one, position in positions.items():
            if (lost := first.get(one, 0) - position) > 0:
                _EXPIRED.labels(one.topic.removeprefix(self._prefix)).inc(lost)
                place = f"{one.topic}-{one.partition}"
                log.error("bus.records_expired", partition=place, position=position, records=lost)

    async def start_at(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from `offsets`, all of them assigned."""
        self._pump.drop(offsets.keys())
        for one, offset in offsets.items():
            self._consumer.seek(one, offset)
            self._next[one] = offset

    async def _committed(self, partitions: Sequence[Partition]) -> Positions:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            found = {one: await self._consumer.committed(self._to_topic_partition(one)) for one in partitions}
        return {one: offset for one, offset in found.items() if offset is not None}

    def _to_partition(self, one: TopicPartition) -> Partition:
        return Partition(one.topic.removeprefix(self._prefix), one.partition)

    def _to_topic_partition(self, one: Partition) -> TopicPartition:
        return TopicPartition(self._prefix + one.topic, one.number)

    def _to_topic_partitions(self, positions: Positions) -> dict[TopicPartition, int]:
        return {self._to_topic_partition(one): offset for one, offset in positions.items()}

    async def seek(self, positions: Positions) -> None:
        """See `Subscription.seek`."""
        held = self._consumer.assignment()
        await self.start_at(
            {one: offset for one, offset in self._to_topic_partitions(positions).items() if one in held}
        )

    async def commit(self, positions: Positions) -> None:
        """See `Subscription.commit`; a failed commit only makes the reported lag too high."""
        held = self._consumer.assignment()
        offsets = {one: offset for one, offset in self._to_topic_partitions(positions).items() if one in held}
        if self._topics and offsets:
            await within(CLOSE_TIMEOUT_S, self._consumer.commit(offsets))

    def assignment(self) -> frozenset[Partition]:
        """See `Subscription.assignment`."""
        return frozenset(self._to_partition(one) for one in self._consumer.assignment())

    def lag(self) -> Mapping[Partition, int]:
        """See `Subscription.lag`; 1 for a partition whose end is not known yet."""
        if not self._joined:
            return {Partition(topic, 0): 1 for topic in self._topics}
        found = {}
        for one in self._consumer.assignment():
            end, position = self._consumer.highwater(one), self._next.get(one)
            found[self._to_partition(one)] = 1 if end is None or position is None else max(end - position, 0)
        return found

    async def group_lag(self) -> Mapping[Partition, int]:
        """See `Subscription.group_lag`. Takes up to half a second where it is not 0."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                for _ in range(LAG_ATTEMPTS - 1):
                    if not any((found := await self._fetch_group_lag()).values()):
                        return found
                    await asyncio.sleep(LAG_RETRY_S)
                return await self._fetch_group_lag()
        except (KafkaError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error

    async def _fetch_group_lag(self) -> Mapping[Partition, int]:
        whole = [
            self._to_topic_partition(Partition(topic, n)) for topic in self._topics for n in range(PARTITIONS)
        ]
        ends = await self._consumer.end_offsets(whole or list(self._consumer.assignment()))
        mine = self._consumer.assignment() & self._next.keys()
        read = await committed_offsets(self._consumer, ends.keys() - mine)
        read |= {one: self._next[one] for one in mine & self._next.keys()}
        return {self._to_partition(one): max(end - read.get(one, 0), 0) for one, end in ends.items()}

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._open_subscriptions.discard(self)
        self._closed = True
        await self._pump.close()
        await close_consumer(self._consumer)


class PauseUntilPositioned(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka only logs what a rebalance listener raises, so this one does no more than pause."""

    def __init__(self, subscription: KafkaSubscription) -> None:
        self._subscription = subscription

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Drop what was read ahead. Nothing to save: positions are committed with what they cover."""
        self._subscription.release(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold what was assigned until its positions are loaded."""
        self._subscription.pause_until_positioned(assigned)


def _record(partition: Partition, one: Any) -> Record:
    headers = dict(one.headers)
    watermark = headers.get("watermark")
    return Record(
        partition=partition,
        offset=one.offset,
        key=(one.key or b"").decode(),
        id=headers.get("id", b"").decode(),
        name=headers.get("name", b"").decode(),
        value=one.value or b"",
        traceparent=headers["traceparent"].decode() if "traceparent" in headers else None,
        watermark=None if watermark is None else from_microseconds(int(watermark)),
        published_at=one.timestamp / 1000,
    )
