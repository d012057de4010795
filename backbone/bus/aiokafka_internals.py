"""The functions that need private attributes of aiokafka 0.14; check them when its version changes.

Neither a stop nor a flush of aiokafka has a time limit while a broker hangs, and there is no public way to
end a client without them, nor to read many committed offsets in one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerClosed

CLOSE_TIMEOUT_S: Final = 5.0
"""How long a flush or leaving a group may take before the connections are cut."""


async def within(seconds: float, end: Awaitable[None]) -> None:
    """Wait at most so long for a stop that a hung broker may never let finish."""
    with suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(seconds):
            await end


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer at once: what still waits on it gets an error, and nothing more is sent.

    Its own `stop` flushes first, which a hung broker never ends; there is no public way past that.
    """
    producer._closed = True
    producer._message_accumulator.fail_all(ProducerClosed())
    sender = producer._sender and producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    await within(CLOSE_TIMEOUT_S, producer.client.close())
    if sender is not None:
        await asyncio.wait({sender}, timeout=CLOSE_TIMEOUT_S)


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group within `CLOSE_TIMEOUT_S`.

    Otherwise cancel the tasks that would go on sending heartbeats and keep the partitions.
    """
    await within(CLOSE_TIMEOUT_S, consumer.stop())
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    left = [getattr(coordinator, name, None) for name in ("_coordination_task", "_heartbeat_task")]
    left += [getattr(coordinator, "_commit_refresh_task", None), getattr(fetcher, "_fetch_task", None)]
    alive = {task for task in left if task is not None and not task.done()}
    for task in alive:
        task.cancel()
    await within(CLOSE_TIMEOUT_S, consumer._client.close())
    if alive:
        await asyncio.wait(alive, timeout=CLOSE_TIMEOUT_S)


async def committed_offsets(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offsets the whole group has committed, in one request; partitions without a commit are left out."""
    found: dict[TopicPartition, Any] = await consumer._coordinator.fetch_committed_offsets([*partitions])
    return {one: committed.offset for one, committed in found.items()}
