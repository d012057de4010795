"""Reading ahead: in order, each record once, whatever seeks, rebalances and failures come between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone.bus import read_pump
from backbone.bus.kafka_subscription import KafkaSubscription, PauseUntilPositioned
from backbone.bus.protocol import BusUnavailable, Partition, Positions
from backbone.bus.read_pump import ReadPump
from tests.backbone.fake_kafka import FakeConsumer
from tests.waiting import until

ONE, OTHER = TopicPartition("notes", 0), TopicPartition("notes", 1)
ALL = [TopicPartition("notes", number) for number in range(4)]


@pytest.fixture
async def consumer() -> FakeConsumer:
    """A consumer of two partitions, at their beginning."""
    consumer = FakeConsumer()
    consumer.reassign([ONE, OTHER])
    for one in (ONE, OTHER):
        consumer.seek(one, 0)
    return consumer


@pytest.fixture
async def pump(consumer: FakeConsumer) -> AsyncIterator[ReadPump]:
    pump = ReadPump(consumer)
    yield pump
    await pump.close()


def offsets(taken: Sequence[tuple[TopicPartition, Sequence[Any]]]) -> list[tuple[int, int]]:
    return [(partition.partition, record.offset) for partition, records in taken for record in records]


async def taken(pump: ReadPump, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []

    def enough() -> bool:
        found.extend(offsets(pump.take(count - len(found))))
        return len(found) == count

    await until(enough)
    return found


async def test_it_reads_on_while_nobody_takes(consumer: FakeConsumer, pump: ReadPump) -> None:
    assert pump.take(10) == []
    for _ in range(5):
        before = consumer.polls
        consumer.publish(ONE)
        await until(lambda before=before: consumer.polls > before)  # type: ignore[misc]
    assert offsets(pump.take(10)) == [(0, number) for number in range(5)]


async def test_records_are_taken_in_their_order_a_bounded_number_at_a_time(
    consumer: FakeConsumer, pump: ReadPump
) -> None:
    consumer.publish(ONE, 7)
    assert await taken(pump, 3) == [(0, 0), (0, 1), (0, 2)]
    consumer.publish(OTHER, 2)
    assert await taken(pump, 6) == [(0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1)]


@pytest.mark.parametrize("size", [0, 100_000])
async def test_the_buffer_is_bounded_by_records_and_by_bytes(
    consumer: FakeConsumer, pump: ReadPump, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_pump, "MAX_RECORDS", 100 if size == 0 else 10)
    monkeypatch.setattr(read_pump, "MAX_BYTES", 1_000_000)
    most = read_pump.MAX_RECORDS
    pump.take(1)
    for _ in range(1_000):
        consumer.publish(ONE, 1, size)
        await asyncio.sleep(0)
    bound = most if size == 0 else 10
    assert consumer.positions[ONE] <= 2 * bound
    assert await taken(pump, 1_000) == [(0, number) for number in range(1_000)]
    assert max(consumer.asked_for) <= most


async def test_what_is_dropped_is_handed_out_only_after_a_seek(
    consumer: FakeConsumer, pump: ReadPump
) -> None:
    pump.take(1)
    consumer.publish(ONE, 3)
    consumer.publish(OTHER, 3)
    await until(lambda: consumer.positions == {ONE: 3, OTHER: 3})
    pump.drop({ONE})
    assert await taken(pump, 3) == [(1, 0), (1, 1), (1, 2)]
    pump.drop({ONE})
    consumer.seek(ONE, 1)
    assert await taken(pump, 2) == [(0, 1), (0, 2)]


async def test_a_failed_poll_is_raised_once_and_polling_goes_on(
    consumer: FakeConsumer, pump: ReadPump
) -> None:
    pump.take(1)
    await until(lambda: consumer.polls)
    consumer.fail(KafkaError("the group was lost"))
    await until(pump.changed.is_set)
    with pytest.raises(KafkaError, match="the group was lost"):
        pump.take(1)
    consumer.publish(ONE)
    assert await taken(pump, 1) == [(0, 0)]


async def test_a_caller_that_takes_nothing_for_long_stops_the_polling(
    consumer: FakeConsumer, pump: ReadPump
) -> None:
    """So that a stuck member loses its partitions after `max_poll_interval_ms`, as without a pump."""
    pump.take(1)
    await until(lambda: consumer.polls)
    pump._taken_at -= 2 * read_pump.CALLER_IDLE_S
    consumer.publish(ONE)
    await until(lambda: consumer.positions[ONE] == 1)  # the poll that was under way
    consumer.publish(ONE, 100)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (consumer.polls, consumer.positions[ONE]) == (1, 1)
    assert await taken(pump, 101) == [(0, number) for number in range(101)]


async def test_closing_ends_the_polling(consumer: FakeConsumer, pump: ReadPump) -> None:
    pump.take(1)
    await until(lambda: consumer.polls)
    await pump.close()
    consumer.publish(ONE)
    await asyncio.sleep(0)
    assert pump.take(1) == []
    assert consumer.positions[ONE] == 0


# The subscription, against a model.


class Model:
    """One member of a group whose positions are a database's; `expected` is what it is to be handed next."""

    def __init__(self) -> None:
        self.consumer = FakeConsumer()
        self.stored: dict[TopicPartition, int] = dict.fromkeys(ALL, 0)
        self.expected: dict[TopicPartition, int] = {}
        self.subscription = KafkaSubscription(self.consumer, set(), "", ["notes"], self.load)
        self.listener = PauseUntilPositioned(self.subscription)

    async def load(self, partitions: Sequence[Partition]) -> Positions:
        await asyncio.sleep(0)
        return {one: self.stored[TopicPartition(*one)] for one in partitions}

    async def fetch(self, at_most: int, timeout_s: float = 0.0) -> int:
        """Take a batch, check it against the model, and handle it in the database."""
        try:
            records = await self.subscription.fetch(at_most, timeout_s)
        except BusUnavailable:
            return 0
        assert len(records) <= at_most
        for record in records:
            one = TopicPartition(*record.partition)
            assert one in self.consumer.assigned
            assert not self.consumer.rebalancing
            assert record.offset == self.expected[one]
            self.expected[one] = self.stored[one] = record.offset + 1
        return len(records)

    async def seek(self, one: TopicPartition, offset: int) -> None:
        """As after a fence: another consumer moved the position in the database."""
        if one not in self.expected:
            return
        offset = min(offset, len(self.consumer.logs[one]))
        self.stored[one] = self.expected[one] = offset
        await self.subscription.seek({Partition(*one): offset})

    def begin_rebalance(self) -> None:
        if not self.consumer.rebalancing:
            self.consumer.rebalancing = True
            self.listener.on_partitions_revoked(self.consumer.assigned)
            self.expected = {}

    async def end_rebalance(self, mine: Sequence[TopicPartition], others_read: int) -> None:
        self.begin_rebalance()
        for one in ALL:
            if one not in self.consumer.assigned:
                read_to = self.stored[one] + others_read
                self.stored[one] = max(self.stored[one], min(read_to, len(self.consumer.logs[one])))
        self.consumer.reassign(mine)
        await asyncio.sleep(0)
        self.listener.on_partitions_assigned(set(mine))
        self.consumer.find_positions()
        self.expected = {one: self.stored[one] for one in mine}

    async def read_everything(self) -> None:
        """Whatever happened before: all that is left of every partition comes."""
        await self.end_rebalance(ALL, 0)
        async with asyncio.timeout(20):
            while any(self.expected[one] < len(self.consumer.logs[one]) for one in ALL):
                await self.fetch(100, 1.0)


partitions = st.sampled_from(ALL)
turns = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), partitions, st.integers(1, 5)),
        st.tuples(st.just("fetch"), st.integers(1, 4)),
        st.tuples(st.just("turn"), turns),
        st.tuples(st.just("seek"), partitions, st.integers(0, 12)),
        st.tuples(st.just("rebalance"), st.sets(partitions, min_size=1), st.integers(0, 3), turns, turns),
        st.tuples(st.just("fail")),
        st.tuples(st.just("suspend"), turns),
    ),
    min_size=10,
    max_size=60,
)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_each_record_comes_once_and_in_order_whatever_happens(story: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        model = Model()
        await model.end_rebalance(ALL, 0)
        for name, *values in story:
            await _step(model, name, values)
        await model.read_everything()
        await model.subscription._pump.close()

    asyncio.run(play())


async def _step(model: Model, name: str, values: list[Any]) -> None:
    match name, values:
        case "publish", [partition, count]:
            model.consumer.publish(partition, count)
        case "fetch", [at_most]:
            await model.fetch(at_most)
        case "turn", [times]:
            await _turn(times)
        case "seek", [partition, offset]:
            await model.seek(partition, offset)
        case "rebalance", [mine, others_read, before, after]:
            model.begin_rebalance()
            await _turn(before)
            await model.fetch(2)
            await _turn(after)
            await model.end_rebalance(sorted(mine), others_read)
        case "fail", []:
            model.consumer.fail(KafkaError("trouble"))
        case "suspend", [times]:
            model.consumer.suspensions = times


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)
