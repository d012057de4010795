"""Failures specific to Kafka: a rejected message, a hanging broker, a broker restart, expired records."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from prometheus_client import REGISTRY

from backbone.bus.aiokafka_internals import CLOSE_TIMEOUT_S
from backbone.bus.kafka import KafkaBus
from backbone.bus.protocol import (
    BusUnavailable,
    EventBus,
    Message,
    Partition,
    Positions,
    Subscription,
    partition_of,
)
from tests.conftest import Recovered
from tests.engines import (
    KafkaNode,
    MissingRequirement,
    fresh_topics,
    kafka_bootstrap,
    make_topics,
    skip_or_fail,
)
from tests.waiting import PATIENCE_S, until

ANSWER_S = 2.0


def message(text: str, topic: str = "notes") -> Message:
    return Message(topic, "k", f"evt_{text[:20]}", "tests.noted.v1", text.encode())


async def publish_until_acknowledged(bus: EventBus, text: str) -> None:
    """Retry until acknowledged, as a relay does."""

    async def publish_once() -> bool:
        try:
            await bus.publish([message(text)])
        except BusUnavailable:
            return False
        return True

    await until(publish_once)


async def fetch_until(subscription: Subscription, wanted: set[str]) -> set[str]:
    found: set[str] = set()
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= found:
            found |= {record.value.decode() for record in await subscription.fetch(100, 1.0)}
    return found


@asynccontextmanager
async def a_bus(bootstrap: str, prefix: str = "") -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(bootstrap, prefix=prefix, session_timeout_ms=3_000, request_timeout_s=ANSWER_S)
    try:
        yield bus
    finally:
        await bus.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaNode]:
    try:
        started = KafkaNode(tmp_path)
    except MissingRequirement as reason:
        skip_or_fail(str(reason))
    yield started
    started.kill()


async def test_rejected_message_does_not_block_later_messages(recovered: Recovered) -> None:
    async with fresh_topics("others") as (bootstrap, prefix), a_bus(bootstrap, prefix) as bus:
        await make_topics(bootstrap, f"{prefix}notes", **{"max.message.bytes": "2000"})
        reader = await bus.follow(["notes"], "beginning")
        await bus.publish([message("before")])
        with pytest.raises(BusUnavailable, match="MessageSizeTooLarge"):
            await bus.publish([message(secrets.token_hex(20_000))])
        began = time.monotonic()
        await publish_until_acknowledged(bus, "after")
        took = time.monotonic() - began
        assert await fetch_until(reader, {"before", "after"}) == {"before", "after"}
    recovered(f"a poisoned producer: a new one spoke after {took:.2f} s")


async def test_subscribing_to_a_missing_topic_names_it() -> None:
    async with a_bus(kafka_bootstrap()) as bus:
        with pytest.raises(BusUnavailable, match="nowhere"):
            await bus.subscribe("readers", ["nowhere"])
        with pytest.raises(BusUnavailable, match="nowhere"):
            await bus.follow(["nowhere"], "end")


async def test_calls_are_bounded_while_a_broker_hangs_and_succeed_once_it_resumes(
    broker: KafkaNode, recovered: Recovered
) -> None:
    await make_topics(broker.address, "notes")
    async with a_bus(broker.address) as bus:
        reader = await bus.subscribe("readers", ["notes"])
        leaving = await bus.subscribe("leavers", ["notes"])
        await publish_until_acknowledged(bus, "before")
        await fetch_until(reader, {"before"})
        await fetch_until(leaving, {"before"})
        broker.pause()
        began = time.monotonic()
        with pytest.raises(BusUnavailable):
            await bus.publish([message("lost")])
        assert time.monotonic() - began < ANSWER_S + CLOSE_TIMEOUT_S
        began = time.monotonic()
        await leaving.commit(dict.fromkeys(leaving.assignment(), 1))
        await leaving.close()
        assert time.monotonic() - began < 4 * CLOSE_TIMEOUT_S
        broker.resume()
        began = time.monotonic()
        await publish_until_acknowledged(bus, "after")
        spoke = time.monotonic() - began
        await fetch_until(reader, {"after"})
        took = time.monotonic() - began
    recovered(f"a stalled broker resumed: published after {spoke:.2f} s, fetched after {took:.2f} s")


async def test_acknowledged_records_survive_a_broker_restart(broker: KafkaNode, recovered: Recovered) -> None:
    await make_topics(broker.address, "notes")
    async with a_bus(broker.address) as bus:
        reader = await bus.subscribe("readers", ["notes"])
        await publish_until_acknowledged(bus, "before")
        await fetch_until(reader, {"before"})
        broker.kill()
        with pytest.raises(BusUnavailable):
            await bus.publish([message("lost")])
        broker.start()
        began = time.monotonic()
        await publish_until_acknowledged(bus, "after")
        await fetch_until(reader, {"after"})
        took = time.monotonic() - began
        everything = await bus.follow(["notes"], "beginning")
        assert {"before", "after"} <= await fetch_until(everything, {"before", "after"})
    recovered(f"a restarted broker: fetched after {took:.2f} s")


async def test_records_expired_before_their_group_read_them_are_reported() -> None:
    partition = Partition("notes", partition_of("k"))

    async def positions(asked: object) -> Positions:
        return {partition: 1}

    def expired() -> float:
        return REGISTRY.get_sample_value("ataa_bus_records_expired_total", {"topic": "notes"}) or 0.0

    async with fresh_topics("notes") as (bootstrap, prefix), a_bus(bootstrap, prefix) as bus:
        await bus.publish([message(str(number)) for number in range(5)])
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        there = TopicPartition(prefix + "notes", partition.number)
        await admin.delete_records({there: RecordsToDelete(before_offset=3)})
        await admin.close()
        before = expired()
        subscription = await bus.subscribe("group", ["notes"], positions)
        assert await fetch_until(subscription, {"3", "4"}) == {"3", "4"}
        assert expired() - before == 2
