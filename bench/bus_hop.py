"""One hop through the bus: from publishing a record to its arrival at a subscriber of the same process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from backbone.bus.protocol import PARTITIONS, EventBus, Message
from backbone.bus.sqlite import SqliteBus

TOPIC: Final = "bench-hop"
WARM_UP: Final = 20
_VALUE: Final = b'{"filling":"' + b"x" * 600 + b'"}'
"""About as long as a payment's event."""


async def embedded_hop_ms(rate: float, seconds: float) -> list[float]:
    """Milliseconds of each hop through the embedded bus, ascending."""
    with tempfile.TemporaryDirectory(prefix="ataa-bench-") as directory:
        bus = SqliteBus(Path(directory) / "bus.db")
        try:
            return await hop_ms(bus, rate, seconds)
        finally:
            await bus.close()


async def kafka_hop_ms(bootstrap: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds of each hop through a Kafka cluster, ascending; makes a topic of its own there."""
    async with kafka_bus(bootstrap) as bus:
        return await hop_ms(bus, rate, seconds)


@asynccontextmanager
async def kafka_bus(bootstrap: str) -> AsyncIterator[EventBus]:
    """The bus on a Kafka cluster, with the topic of the hops."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    from backbone.bus.kafka import KafkaBus

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    finally:
        await admin.close()
    bus = KafkaBus(bootstrap)
    try:
        yield bus
    finally:
        await bus.close()


async def hop_ms(bus: EventBus, rate: float, seconds: float) -> list[float]:
    """Publish at `rate` for `seconds`; milliseconds from before each publication to its fetch, ascending."""
    subscription = await bus.follow([TOPIC], "end")
    await subscription.fetch(1000, 0.2)
    count = max(WARM_UP * 2, int(rate * seconds))
    published: dict[str, float] = {}
    found: list[float] = []
    publishing = asyncio.create_task(_publish(bus, rate, count, published))
    try:
        give_up = time.monotonic() + count / rate + 10.0
        while len(found) < count and time.monotonic() < give_up:
            for record in await subscription.fetch(1000, 0.5):
                found.append((time.perf_counter() - published[record.id]) * 1000)
        await publishing
    finally:
        publishing.cancel()
        await subscription.close()
    return sorted(found[WARM_UP:])


async def _publish(bus: EventBus, rate: float, count: int, published: dict[str, float]) -> Sequence[str]:
    began = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        identifier = f"hop-{number}"
        published[identifier] = time.perf_counter()
        await bus.publish([Message(TOPIC, "one", identifier, "bench.hop.v1", _VALUE)])
    return list(published)
