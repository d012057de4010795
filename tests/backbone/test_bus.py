"""The behaviour of the event bus: one suite, run by every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from backbone.bus.kafka import KafkaBus
from backbone.bus.protocol import PARTITIONS, EventBus, Message, Partition, Record, Subscription, partition_of
from backbone.bus.sqlite import SqliteBus
from tests.engines import fresh_topics
from tests.waiting import PATIENCE_S, until

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

OpenBus = Callable[[], Awaitable[EventBus]]


@pytest.fixture(params=["sqlite", "kafka"])
async def open_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenBus]:
    """Opens the bus under test; a second call simulates a restart."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            new: Callable[[], EventBus] = partial(SqliteBus, tmp_path / "bus.db")
        else:
            bootstrap, prefix = await stack.enter_async_context(fresh_topics("notes", "others", "snapshots"))
            new = partial(KafkaBus, bootstrap, prefix=prefix, session_timeout_ms=3_000)
        opened: list[EventBus] = []

        async def start() -> EventBus:
            while opened:
                await opened.pop().close()
            opened.append(new())
            return opened[-1]

        yield start
        while opened:
            await opened.pop().close()


def message(key: str, text: str, topic: str = "notes", watermark: datetime | None = None) -> Message:
    return Message(topic, key, f"evt_{text}", "tests.noted.v1", text.encode(), None, watermark)


async def read(subscription: Subscription, count: int) -> list[Record]:
    """Read `count` records that are not mere watermarks; fails where they do not arrive."""
    found: list[Record] = []
    while len(found) < count:
        records = await subscription.fetch(100, PATIENCE_S)
        assert records, f"only {len(found)} of {count} arrived"
        found += [record for record in records if record.name]
    return found


def shared(one: Subscription, other: Subscription) -> bool:
    """Whether both members are assigned partitions."""
    both = one.assignment(), other.assignment()
    return all(both) and both[0].isdisjoint(both[1])


async def test_records_of_a_key_arrive_completely_and_in_order(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    for batch in range(5):
        await bus.publish([message(f"key{n % 7}", f"{batch}-{n}") for n in range(20)])
    records = await read(subscription, 100)
    for key in {record.key for record in records}:
        texts = [record.value.decode() for record in records if record.key == key]
        wanted = [f"{batch}-{n}" for batch in range(5) for n in range(20) if f"key{n % 7}" == key]
        assert texts == wanted


async def test_record_has_the_fields_of_the_published_message(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    sent = Message(
        "notes", "drv_1", "evt_1", "a.name.v1", b"\x00\xff", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    )
    await bus.publish([sent])
    (record,) = await read(subscription, 1)
    assert record.partition == Partition("notes", partition_of("drv_1"))
    assert (record.key, record.id, record.name, record.value) == ("drv_1", "evt_1", "a.name.v1", b"\x00\xff")
    assert record.traceparent == sent.traceparent


async def test_group_resumes_at_its_committed_position_after_a_restart(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    await bus.publish([message("k", str(n)) for n in range(10)])
    first = await read(subscription, 10)
    await subscription.commit({first[0].partition: first[3].offset + 1})
    await subscription.close()
    bus = await open_bus()
    again = await bus.subscribe("readers", ["notes"])
    assert [record.value for record in await read(again, 6)] == [str(n).encode() for n in range(4, 10)]


async def test_positions_of_the_database_override_those_of_the_bus(open_bus: OpenBus) -> None:
    bus = await open_bus()
    await bus.publish([message("k", str(n)) for n in range(5)])

    async def positions(partitions: object) -> dict[Partition, int]:
        return {Partition("notes", partition_of("k")): 3}

    subscription = await bus.subscribe("readers", ["notes"], positions)
    assert [record.value for record in await read(subscription, 2)] == [b"3", b"4"]


async def test_seek_rereads_records(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    await bus.publish([message("k", str(n)) for n in range(3)])
    records = await read(subscription, 3)
    await subscription.seek({records[0].partition: records[1].offset})
    assert [record.value for record in await read(subscription, 2)] == [b"1", b"2"]


async def test_each_group_reads_every_record(open_bus: OpenBus) -> None:
    bus = await open_bus()
    one, other = await bus.subscribe("one", ["notes"]), await bus.subscribe("other", ["notes"])
    await bus.publish([message(f"k{n}", str(n)) for n in range(30)])
    assert len(await read(one, 30)) == len(await read(other, 30)) == 30


async def test_members_of_a_group_share_partitions_and_take_over_those_of_a_leaving_member(
    open_bus: OpenBus,
) -> None:
    bus = await open_bus()
    one = await bus.subscribe("readers", ["notes", "others"])
    other = await bus.subscribe("readers", ["notes", "others"])
    await bus.publish([message(f"k{n}", str(n)) for n in range(60)])
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < 60 or not shared(one, other):
            for member in (one, other):
                records = [record for record in await member.fetch(100, 0.1) if record.name]
                await member.commit({record.partition: record.offset + 1 for record in records})
                found += records
    assert {record.value for record in found} == {str(n).encode() for n in range(60)}
    both = one.assignment() | other.assignment()
    assert {partition.number for partition in both} == set(range(PARTITIONS))
    await other.close()
    await bus.publish([message(f"k{n}", f"later{n}") for n in range(60)])
    later: set[bytes] = set()
    while len(later) < 60:
        later |= {record.value for record in await read(one, 1) if b"later" in record.value}


async def test_equal_partition_numbers_of_two_topics_are_assigned_to_one_member(open_bus: OpenBus) -> None:
    bus = await open_bus()
    one = await bus.subscribe("readers", ["notes", "others"])
    other = await bus.subscribe("readers", ["notes", "others"])
    await until(partial(shared, one, other))
    numbers = {
        topic: {p.number for p in one.assignment() if p.topic == topic} for topic in ("notes", "others")
    }
    assert numbers["notes"] == numbers["others"]


async def test_follower_starts_at_the_beginning_or_at_the_end(open_bus: OpenBus) -> None:
    bus = await open_bus()
    await bus.publish([message("k", "before")])
    whole, tail = await bus.follow(["notes"], "beginning"), await bus.follow(["notes"], "end")
    await bus.publish([message("k", "after")])
    assert [record.value for record in await read(whole, 2)] == [b"before", b"after"]
    assert [record.value for record in await read(tail, 1)] == [b"after"]


async def test_compacted_topic_keeps_the_newest_record_of_a_key(open_bus: OpenBus) -> None:
    bus = await open_bus()
    for n in range(50):
        await bus.publish(
            [message("drv_1", f"one{n}", "snapshots"), message("drv_2", f"two{n}", "snapshots")]
        )
    bus = await open_bus()
    await bus.publish([message("drv_1", "one50", "snapshots")])
    reader = await bus.follow(["snapshots"], "beginning")
    newest: dict[str, bytes] = {}
    while newest != {"drv_1": b"one50", "drv_2": b"two49"}:
        records = await reader.fetch(100, PATIENCE_S)
        assert records, newest
        newest |= {record.key: record.value for record in records if record.name}


async def test_watermark_follows_the_records_it_covers(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    at = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)
    await bus.publish([message("k", "a"), message("k", "b", watermark=at)])
    later = at.replace(hour=13)
    await bus.publish_watermarks("notes", later, list(range(PARTITIONS)))
    seen: list[tuple[bytes, datetime | None]] = []
    while not seen or seen[-1][1] != later:
        records = await subscription.fetch(1, PATIENCE_S)
        assert records
        seen += [(r.value, r.watermark) for r in records if r.partition.number == partition_of("k")]
    values = [value for value, _ in seen if value]
    assert values == [b"a", b"b"]
    first_mark = next(place for place, (_, mark) in enumerate(seen) if mark is not None)
    assert b"b" in [value for value, _ in seen[: first_mark + 1]]


async def test_fetch_without_records_returns_an_empty_list(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    assert await subscription.fetch(10, 0.02) == []


async def test_lag_counts_records_not_yet_fetched(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    await bus.publish([message("k", str(n)) for n in range(9)])
    assert len(await subscription.fetch(4, PATIENCE_S)) == 4
    await until(lambda: sum(subscription.lag().values()) == 5)


async def test_group_lag_counts_records_of_all_members(open_bus: OpenBus) -> None:
    bus = await open_bus()
    one, other = await bus.subscribe("readers", ["notes"]), await bus.subscribe("readers", ["notes"])
    async with asyncio.timeout(PATIENCE_S):
        while not shared(one, other):
            for member in (one, other):
                await member.fetch(100, 0.1)
    await bus.publish([message(f"k{n}", str(n)) for n in range(60)])
    assert await waiting(one) == await waiting(other) == 60
    mine = 0
    while mine < await waiting(one, one.assignment()) + mine:
        mine += len([record for record in await one.fetch(100, 0.1) if record.name])
    assert 0 < mine < 60
    assert await waiting(one) == 60 - mine
    assert await waiting(other) == 60  # nothing was committed
    records = await read(other, 60 - mine)
    assert await waiting(one) == 60 - mine
    await other.commit({record.partition: record.offset + 1 for record in records})
    assert await waiting(one) == 0
    assert await waiting(other) == mine


async def test_committed_watermarks_are_not_counted_as_lag(open_bus: OpenBus) -> None:
    bus = await open_bus()
    subscription = await bus.subscribe("readers", ["notes"])
    await bus.publish([message("k", "a")])
    await bus.publish_watermarks("notes", datetime(2022, 1, 7, tzinfo=UTC), list(range(PARTITIONS)))
    marked: set[int] = set()
    async with asyncio.timeout(PATIENCE_S):
        while len(marked) < PARTITIONS:
            records = await subscription.fetch(100, 1.0)
            await subscription.commit({record.partition: record.offset + 1 for record in records})
            marked |= {record.partition.number for record in records if record.watermark}
    assert await waiting(subscription) == 0
    await subscription.close()
    again = await bus.subscribe("readers", ["notes"])
    assert await waiting(again) == 0


async def waiting(member: Subscription, among: frozenset[Partition] | None = None) -> int:
    lag = await member.group_lag()
    return sum(n for partition, n in lag.items() if among is None or partition in among)
