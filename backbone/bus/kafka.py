"""The bus on Apache Kafka, through aiokafka: the promises of `EventBus`, with Kafka's own traps kept inside.

The producer is idempotent. After a produce error its sequence has a gap and the partition would
refuse everything that follows, so it is thrown away and the outbox tries again with a new one.
Neither a send, a commit nor a stop has a time limit of its own while a broker hangs, and a read
waits for a rebalance without any: each gets one here. Offsets on Kafka are for lag alone; the
truth is in the consumer's database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Literal

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerClosed
from prometheus_client import Counter

from backbone.bus.kafka_security import PLAINTEXT, KafkaSecurity, connection_failure
from backbone.bus.protocol import (
    PARTITIONS,
    BusUnavailable,
    LoadPositions,
    Message,
    Partition,
    Positions,
    Record,
    partition_of,
)
from backbone.database.columns import from_microseconds, microseconds

REQUEST_TIMEOUT_S: Final = 10.0
"""How long a broker may take to acknowledge a batch, or to let a member in."""

LAG_ATTEMPTS: Final = 5
LAG_RETRY_S: Final = 0.1
"""Watermarks are records here: before a group is called behind, those on their way get a moment to pass."""

CLOSE_TIMEOUT_S: Final = 5.0
"""How long a flush or a farewell may take before the connections are simply cut."""

Send = tuple[str, int, bytes, bytes, list[tuple[str, bytes]]]
"""Topic, partition, key, value, headers."""

Fetched = Mapping[TopicPartition, Sequence[Any]]
"""What aiokafka hands out: its records, a partition."""

log = structlog.get_logger()

_EXPIRED = Counter(
    "ataa_bus_records_expired_total",
    "Records dropped by age before their group had read them.",
    ["topic"],
)


class KafkaBus:
    """An `EventBus` on the cluster at `bootstrap` (`host:port,host:port`).

    Its topics must exist, with twelve partitions each; who reads before they do is told. `prefix` stands
    before every topic and group of ours, for a cluster that is shared. `security` is how it is entered.
    `session_timeout_ms` is how long a member that died keeps its partitions, `request_timeout_s` how long a
    broker
    may take to answer.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        prefix: str = "",
        session_timeout_ms: int = 45_000,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        security: KafkaSecurity = PLAINTEXT,
    ) -> None:
        self._prefix = prefix
        self._request_timeout_s = request_timeout_s
        self._connection: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "request_timeout_ms": int(request_timeout_s * 1000),
            "metadata_max_age_ms": 30_000,
            **security.options(),
        }
        self._security = security
        self._session_timeout_ms = session_timeout_ms
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._subscriptions: set[KafkaSubscription] = set()

    async def publish(self, messages: Sequence[Message], *, lossy: bool = False) -> None:
        """See `EventBus.publish`. Every message is acknowledged by all in-sync replicas."""
        await self._send(
            [
                (
                    message.topic,
                    partition_of(message.key),
                    message.key.encode(),
                    message.value,
                    _headers(message),
                )
                for message in messages
            ]
        )

    async def publish_watermarks(self, topic: str, at: datetime, partitions: Sequence[int]) -> None:
        """See `EventBus.publish_watermarks`: messages that carry nothing else."""
        header = [("watermark", str(microseconds(at)).encode())]
        await self._send([(topic, partition, b"", b"", header) for partition in partitions])

    async def _send(self, sends: Sequence[Send]) -> None:
        if not sends:
            return
        producer = None
        try:
            async with asyncio.timeout(self._request_timeout_s):
                producer = await self._get_producer()
                waiting = [
                    await producer.send(
                        self._prefix + topic, value, key, partition=partition, headers=headers
                    )
                    for topic, partition, key, value, headers in sends
                ]
                # Not gathered: a future that a closing producer cancels would look like our own end.
                await asyncio.wait(waiting)
                for one in waiting:
                    _raise_error_of(one)
        except (KafkaError, TimeoutError, OSError) as error:
            if producer is not None:
                await self._discard(producer)
            raise BusUnavailable(await self._reason(error)) from error

    async def _get_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    enable_idempotence=True,
                    acks="all",
                    linger_ms=2,
                    max_batch_size=131_072,
                    compression_type="lz4",
                    **self._connection,
                )
                try:
                    await producer.start()
                except BaseException:
                    await _close_connections(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """Throw `producer` away unflushed: its sequence may have a gap, and what it holds comes again."""
        if self._producer is producer:
            self._producer = None
            log.warning("bus.producer_discarded")
        await _close_connections(producer)

    async def subscribe(
        self, group: str, topics: Sequence[str], positions: LoadPositions | None = None
    ) -> KafkaSubscription:
        """See `EventBus.subscribe`. Raises `BusUnavailable` where the cluster or a topic is not there."""
        prefixed = [self._prefix + topic for topic in topics]
        consumer = await self._new_consumer(self._prefix + group, prefixed)
        subscription = KafkaSubscription(consumer, self._subscriptions, self._prefix, topics, positions)
        # Only now: a start with a subscription would wait, unbounded, for the whole group to meet.
        consumer.subscribe(prefixed, listener=_PauseUntilPositioned(subscription))
        return subscription

    async def follow(self, topics: Sequence[str], since: Literal["beginning", "end"]) -> KafkaSubscription:
        """See `EventBus.follow`. Raises `BusUnavailable` where the cluster or a topic is not there."""
        prefixed = [self._prefix + topic for topic in topics]
        consumer = await self._new_consumer(None, prefixed)
        partitions = [TopicPartition(topic, number) for topic in prefixed for number in range(PARTITIONS)]
        consumer.assign(partitions)
        subscription = KafkaSubscription(consumer, self._subscriptions, self._prefix)
        bounds = consumer.beginning_offsets if since == "beginning" else consumer.end_offsets
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await subscription.start_at(await bounds(partitions))
        except (KafkaError, TimeoutError, OSError) as error:
            await subscription.close()
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error
        return subscription

    async def _new_consumer(self, group: str | None, topics: Sequence[str]) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=min(self._session_timeout_ms // 3, 3_000),
            rebalance_timeout_ms=60_000,
            # aiokafka has one fetch under way a broker, without the partitions it has just read: what comes
            # in on those waits for its end. Measured at four donors: 550 ms from card to screen with 100
            # here, 260 with 20.
            fetch_max_wait_ms=40,
            **self._connection,
        )
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await consumer.start()
                missing = set(topics) - await consumer.topics()
        except (KafkaError, TimeoutError, OSError) as error:
            await _close_consumer(consumer)
            raise BusUnavailable(await self._reason(error)) from error
        if missing:
            await _close_consumer(consumer)
            raise BusUnavailable(f"there is no topic {', '.join(sorted(missing))}")
        return consumer

    async def _reason(self, error: BaseException) -> str:
        """What went wrong; where no connection could be made, in the words of the servers."""
        refused = isinstance(error, KafkaConnectionError)
        servers = (
            await connection_failure(self._connection["bootstrap_servers"], self._security) if refused else ""
        )
        return servers or f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        """Flush, within `CLOSE_TIMEOUT_S`, and leave every group."""
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        producer, self._producer = self._producer, None
        if producer is not None:
            await _within(CLOSE_TIMEOUT_S, producer.stop())
            await _close_connections(producer)


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
        self._unpositioned: frozenset[TopicPartition] = frozenset()
        self._next: dict[TopicPartition, int] = {}
        self._reading: asyncio.Task[Fetched] | None = None
        self._rebalanced: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause_until_positioned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hand out nothing of `assigned` until its positions have been loaded."""
        self._joined = True
        self._unpositioned = frozenset(assigned)
        self._next.clear()
        if not self._rebalanced.done():
            self._rebalanced.set_result(None)
        self._consumer.pause(*self._unpositioned)

    async def fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """See `Subscription.fetch`. Raises `BusUnavailable` where the group was lost.

        A read is never cancelled (it would lose records) and may outlast `timeout_s` by a whole
        rebalance: then it is left to run, and the next fetch takes what it finds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            while True:
                left_s = max(deadline - loop.time(), 0.0)
                reading = await self._reading_on(max_records, left_s)
                either: set[asyncio.Future[Any]] = {reading, self._rebalanced}
                await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    self._reading = None
                    if records := self._to_records(reading.result()):
                        return records
                if loop.time() >= deadline:
                    return []
        except (KafkaError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error

    async def _reading_on(self, max_records: int, timeout_s: float) -> asyncio.Task[Fetched]:
        """The read that runs, or a new one, with a position for whatever is assigned."""
        if self._rebalanced.done():
            self._rebalanced = asyncio.get_running_loop().create_future()
        if self._reading is None or not self._reading.done():
            await self._position_assigned()
        if self._reading is None:
            found = self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
            self._reading = asyncio.create_task(found)
        return self._reading

    def _to_records(self, found: Fetched) -> list[Record]:
        mine = self._consumer.assignment() - self._unpositioned
        records = []
        for partition in found.keys() & mine:
            self._next[partition] = found[partition][-1].offset + 1
            records += [_record(self._to_partition(partition), one) for one in found[partition]]
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
            if self._unpositioned is fresh:  # else the group met anew meanwhile, and another may have read on
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
        """See `Subscription.commit`; a commit that fails is only a lag shown too high."""
        held = self._consumer.assignment()
        offsets = {one: offset for one, offset in self._to_topic_partitions(positions).items() if one in held}
        if self._topics and offsets:
            await _within(CLOSE_TIMEOUT_S, self._consumer.commit(offsets))

    def assignment(self) -> frozenset[Partition]:
        """See `Subscription.assignment`."""
        return frozenset(self._to_partition(one) for one in self._consumer.assignment())

    def lag(self) -> Mapping[Partition, int]:
        """See `Subscription.lag`; 1 where nobody has said yet how long a partition is."""
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
        # There is no public question for many partitions at once.
        others = await self._consumer._coordinator.fetch_committed_offsets([*ends.keys() - mine])
        read = {one: found.offset for one, found in others.items()}
        read |= {one: self._next[one] for one in mine & self._next.keys()}
        return {self._to_partition(one): max(end - read.get(one, 0), 0) for one, end in ends.items()}

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._open_subscriptions.discard(self)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        await _close_consumer(self._consumer)


class _PauseUntilPositioned(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka only logs what a listener raises, so this one does no more than pause."""

    def __init__(self, subscription: KafkaSubscription) -> None:
        self._subscription = subscription

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to save: positions are committed with what they cover."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold what was assigned until its positions are loaded."""
        self._subscription.pause_until_positioned(assigned)


def _raise_error_of(done: asyncio.Future[Any]) -> None:
    if done.cancelled():
        raise ProducerClosed
    if (error := done.exception()) is not None:
        raise error


async def _within(seconds: float, end: Awaitable[None]) -> None:
    """Wait for an end that may never come with a hung broker, and no longer."""
    with suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(seconds):
            await end


async def _close_connections(producer: AIOKafkaProducer) -> None:
    """End a producer at once: whoever still waits on it is told, nothing of it is sent any more.

    Its own `stop` flushes first, which a hung broker never ends; there is no public way past that.
    """
    producer._close_consumer = True
    producer._message_accumulator.fail_all(ProducerClosed())
    sender = producer._sender and producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    await _within(CLOSE_TIMEOUT_S, producer.client.close())
    if sender is not None:
        await asyncio.wait({sender}, timeout=CLOSE_TIMEOUT_S)


async def _close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group, within `CLOSE_TIMEOUT_S`; else end what would go on heartbeating and keep its
    partitions."""
    await _within(CLOSE_TIMEOUT_S, consumer.stop())
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    left = [getattr(coordinator, name, None) for name in ("_coordination_task", "_heartbeat_task")]
    left += [getattr(coordinator, "_commit_refresh_task", None), getattr(fetcher, "_fetch_task", None)]
    alive = {task for task in left if task is not None and not task.done()}
    for task in alive:
        task.cancel()
    await _within(CLOSE_TIMEOUT_S, consumer._client.close())
    if alive:
        await asyncio.wait(alive, timeout=CLOSE_TIMEOUT_S)


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = [("id", message.id.encode()), ("name", message.name.encode())]
    if message.traceparent is not None:
        headers.append(("traceparent", message.traceparent.encode()))
    if message.watermark is not None:
        headers.append(("watermark", str(microseconds(message.watermark)).encode()))
    return headers


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
    )
