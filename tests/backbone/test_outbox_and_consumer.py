"""Outbox, bus and consumer together: no loss, no repetition, failing events become dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from backbone.bus.kafka import KafkaBus
from backbone.bus.protocol import BusUnavailable, EventBus, Message, Partition, Record, partition_of
from backbone.bus.sqlite import SqliteBus
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.messaging.consumer import SKIP_AFTER_WATERMARKS, Consumer
from backbone.messaging.inbox import load_positions, next_positions, record_new
from backbone.messaging.lossy import publish_lossy
from backbone.messaging.outbox import EventTooLarge, Relay, announce
from tests.backbone.notes import MESSAGING_TABLES, Noted, noted, open_database, sqlite_url, take_notes
from tests.engines import fresh_postgres, fresh_topics
from tests.waiting import until


@pytest.fixture(params=["embedded", "real"])
async def system(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Database, EventBus]]:
    """Database and bus as deployed: SQLite with the embedded bus, PostgreSQL with Kafka."""
    async with AsyncExitStack() as stack:
        bus: EventBus
        if request.param == "embedded":
            url, bus = sqlite_url(tmp_path), SqliteBus(tmp_path / "bus.db")
        else:
            url = await stack.enter_async_context(fresh_postgres())
            bootstrap, prefix = await stack.enter_async_context(fresh_topics("notes", "notes.dead-letter"))
            bus = KafkaBus(bootstrap, prefix=prefix, session_timeout_ms=3_000)
        stack.push_async_callback(bus.close)
        yield await stack.enter_async_context(open_database(url)), bus


@pytest.fixture
def database(system: tuple[Database, EventBus]) -> Database:
    return system[0]


@pytest.fixture
def bus(system: tuple[Database, EventBus]) -> EventBus:
    return system[1]


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(work.run(stop)) for work in works]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def announce_note(database: Database, *texts: str, about: str = "k") -> None:
    async with database.transaction() as session:
        await announce(session, [Noted(about=about, text=text) for text in texts])


async def outbox_rows(database: Database) -> int:
    async with database.reading() as session:
        return (await session.execute(select(func.count()).select_from(MESSAGING_TABLES.outbox))).scalar_one()


async def test_announced_event_is_consumed_once_and_the_outbox_empties(
    database: Database, bus: EventBus
) -> None:
    relay = Relay("tests", database, bus, ["notes"])
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    async with running(relay, consumer):
        await announce_note(database, "a", "b")
        await announce_note(database, "c")

        async def all_noted() -> bool:
            return await noted(database) == [("k", "a"), ("k", "b"), ("k", "c")]

        await until(all_noted)
        await until(relay.is_empty)


async def test_failed_transaction_publishes_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            await announce(session, [Noted(about="k", text="never")])
            raise RuntimeError
    assert await outbox_rows(database) == 0


async def test_oversized_event_fails_its_transaction(database: Database) -> None:
    with pytest.raises(EventTooLarge):
        await announce_note(database, "x" * 600_000)
    assert await outbox_rows(database) == 0


class FlakyBus(SqliteBus):
    """A bus that stores messages but fails to acknowledge every second publish."""

    calls = 0

    async def publish(self, messages: Any, *, lossy: bool = False) -> None:
        self.calls += 1
        await super().publish(messages, lossy=lossy)
        if self.calls % 2:
            raise BusUnavailable("no acknowledgement")


async def test_unacknowledged_publish_is_repeated_and_handled_once(
    database: Database, tmp_path: Path
) -> None:
    away = FlakyBus(tmp_path / "away.db")
    consumer = Consumer("notes", away, ["notes"], {Noted: take_notes}, database)
    async with running(Relay("tests", database, away, ["notes"]), consumer):
        await announce_note(database, "a")

        async def emptied() -> bool:
            return await outbox_rows(database) == 0

        await until(emptied)
        await announce_note(database, "end")

        async def ended() -> bool:
            return ("k", "end") in await noted(database)

        await until(ended)
    assert await noted(database) == [("k", "a"), ("k", "end")]
    assert away.calls >= 2
    await away.close()


async def test_failing_event_becomes_a_dead_letter_and_the_others_are_handled(
    database: Database, bus: EventBus
) -> None:
    letters = await bus.follow(["notes.dead-letter"], "beginning")
    texts = [f"t{n}" for n in range(20)] + ["poison"] + [f"u{n}" for n in range(20)]
    await announce_note(database, *texts)
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    async with running(Relay("tests", database, bus, ["notes"]), consumer):

        async def all_others() -> bool:
            return len(await noted(database)) == 40

        await until(all_others)
        (letter,) = [record for record in await letters.fetch(10, 5.0) if record.name]
    assert [text for _, text in await noted(database)] == [text for text in texts if text != "poison"]
    assert b"this one cannot be noted" in letter.value


async def test_undecodable_event_becomes_a_dead_letter(database: Database, bus: EventBus) -> None:
    letters = await bus.follow(["notes.dead-letter"], "beginning")
    await bus.publish([Message("notes", "k", "evt_1", Noted.wire_name, b"{not json")])
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    async with running(Relay("tests", database, bus, []), consumer):
        assert [record.id for record in await letters.fetch(10, 5.0)] == ["evt_1"]


async def test_event_of_an_unknown_name_is_skipped(database: Database, bus: EventBus) -> None:
    known = Noted(about="k", text="known").to_bytes()
    await bus.publish([Message("notes", "k", "evt_1", "from.the_future.v9", b"?")])
    await bus.publish([Message("notes", "k", "evt_2", Noted.wire_name, known)])
    async with running(Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)):

        async def is_consumed() -> bool:
            return await noted(database) == [("k", "known")]

        await until(is_consumed)


async def test_fenced_consumer_reloads_its_position(database: Database, bus: EventBus) -> None:
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    # Without watermarks, which are records of their own on Kafka and would take offset 1 after a second.
    async with running(Relay("tests", database, bus, []), consumer):
        await announce_note(database, "a")
        await until(consumer.handled.is_set)

        async def a_is_noted() -> bool:
            return len(await noted(database)) == 1

        await until(a_is_noted)
        # The other consumer has handled "b" (offset 1) already, as its position says.
        positions = MESSAGING_TABLES.positions
        async with database.transaction() as session:
            await session.execute(update(positions).where(positions.c.next == 1).values(next=2))
        await announce_note(database, "b", "c")

        async def c_is_noted() -> bool:
            return ("k", "c") in await noted(database)

        await until(c_is_noted)
    assert await noted(database) == [("k", "a"), ("k", "c")]


async def test_restarted_consumer_repeats_no_event(database: Database, bus: EventBus) -> None:
    relay = Relay("tests", database, bus, ["notes"])
    for text in ("a", "b", "c"):
        async with running(relay, Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)):
            await announce_note(database, text)

            async def came(text: str = text) -> bool:
                return ("k", text) in await noted(database)

            await until(came)
    assert [text for _, text in await noted(database)] == ["a", "b", "c"]


async def test_consumer_with_a_backlog_takes_larger_batches_without_rests(
    tmp_path: Path,
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    notes = [Noted(about="k", text=str(n)) for n in range(35)]
    await publish_lossy(bus, notes)
    batches: list[list[str]] = []

    async def note_batch(events: Sequence[Noted], session: Transaction) -> None:
        batches.append([event.text for event in events])

    async with open_database(sqlite_url(tmp_path)) as database:
        consumer = Consumer("notes", bus, ["notes"], {Noted: note_batch}, database, max_records=5)
        consumer._interval.rest = lambda *_: rested.append(len(batches))  # type: ignore[method-assign]
        rested: list[int] = []

        async def all_taken() -> bool:
            return sum(map(len, batches)) == 35 and not consumer.is_behind

        async with running(consumer):
            await until(all_taken)
            await publish_lossy(bus, [Noted(about="k", text="later")])
            await until(lambda: rested)
    assert [len(batch) for batch in batches] == [5, 20, 10, 1]
    assert rested == [4]
    assert [text for batch in batches for text in batch] == [*map(str, range(35)), "later"]
    await bus.close()


async def test_repeated_event_is_recorded_once_within_a_batch_and_between_batches(
    database: Database,
) -> None:
    def record(offset: int, event_id: str) -> Record:
        return Record(Partition("notes", 0), offset, "k", event_id, Noted.wire_name, b"")

    async def new(*ids: str) -> list[str]:
        async with database.transaction() as session:
            found = await record_new(session, "notes", [record(n, one) for n, one in enumerate(ids)])
        return [one.id for one in found]

    assert await new("a", "b", "a") == ["a", "b"]
    assert await new("b", "c", "a", "d") == ["c", "d"]
    assert await new("a", "d") == []
    assert await new("e") == ["e"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2)), max_size=12))
def test_next_position_is_behind_the_last_record_of_each_partition(read: list[tuple[str, int]]) -> None:
    """Equal partitions may be one object or several."""
    records = [Record(Partition(*one), n, "k", "evt_1", "x", b"") for n, one in enumerate(read)]
    same = [record._replace(partition=records[0].partition) for record in records]
    for each in (records, same):
        assert next_positions(each) == {record.partition: record.offset + 1 for record in each}


async def test_idle_partitions_receive_watermarks(database: Database, bus: EventBus) -> None:
    began = datetime.now(UTC)
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    async with running(Relay("tests", database, bus, ["notes"]), consumer):
        await until(lambda: len(consumer.watermarks) == 12)
    assert min(consumer.watermarks.values()) >= began


async def test_watermarks_of_an_idle_time_are_not_reread() -> None:
    """On Kafka, a watermark is a separate record."""
    partition = Partition("notes", 3)
    async with fresh_topics("notes") as (bootstrap, prefix), fresh_postgres() as url:
        bus = KafkaBus(bootstrap, prefix=prefix)
        async with open_database(url) as database:
            await bus.publish_watermarks(
                "notes", datetime.now(UTC), [partition.number] * 3 * SKIP_AFTER_WATERMARKS
            )
            async with running(Consumer("notes", bus, ["notes"], {}, database)):

                async def passed() -> bool:
                    known = await load_positions(database, "notes", [partition])
                    return known.get(partition, 0) > 2 * SKIP_AFTER_WATERMARKS

                await until(passed)
        await bus.close()


async def test_watermark_stays_below_the_floor(database: Database, bus: EventBus) -> None:
    floor = datetime(2022, 1, 7, tzinfo=UTC)

    async def oldest_unapplied(_session: object) -> datetime:
        return floor

    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    async with running(Relay("tests", database, bus, ["notes"], oldest_unapplied), consumer):
        await announce_note(database, "a")
        await until(lambda: len(consumer.watermarks) == 12)
        await until(lambda: Partition("notes", partition_of("k")) in consumer.watermarks)
    assert set(consumer.watermarks.values()) == {floor}
