"""The bus on Apache Kafka, through aiokafka, with the guarantees of `EventBus`.

The producer is idempotent. After a produce error its sequence has a gap and the partition would
refuse everything that follows, so it is discarded and the outbox tries again with a new one.
Neither a send, a commit nor a stop has a time limit of its own while a broker hangs, and a read
waits for a rebalance without any: each gets one here. Offsets committed to Kafka only serve to compute the
lag; consumers resume from the positions in their own database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerClosed

from backbone.bus.aiokafka_internals import CLOSE_TIMEOUT_S, close_consumer, end_producer, within
from backbone.bus.kafka_security import PLAINTEXT, KafkaSecurity, connection_failure
from backbone.bus.kafka_subscription import REQUEST_TIMEOUT_S, KafkaSubscription, PauseUntilPositioned
from backbone.bus.protocol import (
    PARTITIONS,
    BusUnavailable,
    LoadPositions,
    Message,
    partition_of,
)
from backbone.database.columns import microseconds

Send = tuple[str, int, bytes, bytes, list[tuple[str, bytes]]]
"""Topic, partition, key, value, headers."""

log = structlog.get_logger()


class KafkaBus:
    """An `EventBus` on the cluster at `bootstrap` (`host:port,host:port`).

    Its topics must exist, with twelve partitions each; subscribing earlier is an error. `prefix` precedes the
    name of every topic and group, for a shared cluster. `security` is the security of the connections.
    `session_timeout_ms` is how long a member that died keeps its partitions, `request_timeout_s` how long a
    broker may take to answer.
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
                # Not gathered: a future cancelled by a closing producer would look like our own cancellation.
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
                    linger_ms=0,  # a relay's round is sent as a whole: there is nothing to wait for
                    max_batch_size=131_072,
                    compression_type="lz4",
                    **self._connection,
                )
                try:
                    await producer.start()
                except BaseException:
                    await end_producer(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """Discard `producer` without a flush: its sequence may have a gap. Its messages are sent again."""
        if self._producer is producer:
            self._producer = None
            log.warning("bus.producer_discarded")
        await end_producer(producer)

    async def subscribe(
        self, group: str, topics: Sequence[str], positions: LoadPositions | None = None
    ) -> KafkaSubscription:
        """See `EventBus.subscribe`. Raises `BusUnavailable` where the cluster or a topic is not there."""
        prefixed = [self._prefix + topic for topic in topics]
        consumer = await self._new_consumer(self._prefix + group, prefixed)
        subscription = KafkaSubscription(consumer, self._subscriptions, self._prefix, topics, positions)
        # After the start: a start with a subscription waits without a bound for the group to rebalance.
        consumer.subscribe(prefixed, listener=PauseUntilPositioned(subscription))
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
            # How long a broker holds a fetch that finds nothing. Records end it at once; a seek, and a
            # request for offsets (which takes its turn on the same connection), may wait for its end.
            fetch_max_wait_ms=200,
            **self._connection,
        )
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await consumer.start()
                missing = set(topics) - await consumer.topics()
        except (KafkaError, TimeoutError, OSError) as error:
            await close_consumer(consumer)
            raise BusUnavailable(await self._reason(error)) from error
        if missing:
            await close_consumer(consumer)
            raise BusUnavailable(f"there is no topic {', '.join(sorted(missing))}")
        return consumer

    async def _reason(self, error: BaseException) -> str:
        """What went wrong; where no connection could be made, with the servers' own messages."""
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
            await within(CLOSE_TIMEOUT_S, producer.stop())
            await end_producer(producer)


def _raise_error_of(done: asyncio.Future[Any]) -> None:
    if done.cancelled():
        raise ProducerClosed
    if (error := done.exception()) is not None:
        raise error


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = [("id", message.id.encode()), ("name", message.name.encode())]
    if message.traceparent is not None:
        headers.append(("traceparent", message.traceparent.encode()))
    if message.watermark is not None:
        headers.append(("watermark", str(microseconds(message.watermark)).encode()))
    return headers
