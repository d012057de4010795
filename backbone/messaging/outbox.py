"""The outbox: events are stored in the transaction of their change, and a relay publishes them.

Rows are read by number and deleted by number once acknowledged. There is no cursor: a row that
commits late, with a lower number, would be skipped by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import (
    BigInteger,
    Insert,
    Row,
    Table,
    delete,
    func,
    insert,
    literal_column,
    select,
    type_coerce,
)

from backbone import ids
from backbone.adaptive_interval import AdaptiveInterval
from backbone.bus.protocol import PARTITIONS, BusUnavailable, EventBus, Message, partition_of
from backbone.contracts.event import Event
from backbone.crash import crash_point
from backbone.database.columns import from_microseconds, microseconds
from backbone.database.database import Database
from backbone.database.leader_work import STANDBY_POLL_S
from backbone.database.one_of import one_of
from backbone.database.plans import Tuples
from backbone.database.transaction import (
    SyncTransaction,
    Transaction,
    messaging_tables_of,
    wake_relay_after_commit,
)
from backbone.telemetry import STAGE, TRACEPARENT, observe_all
from backbone.wakeups import wait_for

BATCH: Final = 500
POLL_S: Final = 0.2
WATERMARK_S: Final = 1.0
MAX_EVENT_BYTES: Final = 512 * 1024
"""A broker would refuse a larger message, after which the producer is unusable (docs/architecture.md)."""

log = structlog.get_logger()

_ROWS = Gauge("ataa_outbox_rows", "Rows waiting in the outbox.", ["service"])
_AGE = Gauge("ataa_outbox_age_seconds", "Age of the oldest row waiting in the outbox.", ["service"])
_PUBLISHED = Counter("ataa_outbox_published_total", "Events acknowledged by the bus.", ["service"])

WatermarkFloor = Callable[[Transaction], Awaitable[datetime | None]]
"""The moment of the oldest thing stored and not yet turned into events, None when there is none."""


class EventTooLarge(ValueError):
    """An event over MAX_EVENT_BYTES; the transaction that would announce it fails."""


async def announce(session: Transaction, events: Sequence[Event]) -> None:
    """Put `events` into the outbox of the transaction `session` is in, in order."""
    await session.run_sync(announce_in, events)


def announce_in(session: SyncTransaction, events: Sequence[Event]) -> None:
    """`announce` for code that `Transaction.run_sync` runs as a whole."""
    _store(session, [(event.wire_name, event.topic, event.key, event.to_bytes()) for event in events])


def announce_encoded(
    session: SyncTransaction, kind: type[Event], events: Iterable[tuple[str, bytes]]
) -> None:
    """Put events of one kind into the outbox, in order; each is its key and its JSON."""
    _store(session, [(kind.wire_name, kind.topic, key, value) for key, value in events])


def _store(session: SyncTransaction, events: Sequence[tuple[str, str, str, bytes]]) -> None:
    """Insert (name, topic, key, value) of each event."""
    if not events:
        return
    for name, _, _, value in events:
        if len(value) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"{name} of {len(value)} bytes")
    same = TRACEPARENT.get(), microseconds(datetime.now(UTC))
    rows = [
        (event_id, *event, *same)
        for event_id, event in zip(ids.several("evt", len(events)), events, strict=True)
    ]
    session.execute(_insert_statement(messaging_tables_of(session).outbox), Tuples(_COLUMNS, rows))
    wake_relay_after_commit(session)


_COLUMNS: Final = ("event_id", "name", "topic", "key", "value", "traceparent", "said_at")


@lru_cache(maxsize=32)
def _insert_statement(outbox: Table) -> Insert:
    """Built once a table: putting a statement together costs more than running it."""
    return insert(outbox)


async def announce_message(session: Transaction, message: Message) -> None:
    """Put a message into the outbox unchanged, such as a dead letter."""
    row = {
        "event_id": message.id,
        "name": message.name,
        "topic": message.topic,
        "key": message.key,
        "value": message.value,
        "traceparent": message.traceparent,
        "said_at": datetime.now(UTC),
    }
    await session.execute(insert(messaging_tables_of(session).outbox), [row])
    wake_relay_after_commit(session)


class _Statements:
    """The relays' statements on a table. Each is one object, so that it is compiled once in a process."""

    def __init__(self, outbox: Table) -> None:
        # Not as a moment: converting one costs as much as reading the rest of the row.
        said_at = type_coerce(outbox.c.said_at, BigInteger).label("said_at")
        columns = [outbox.c[name] for name in ("number", *_COLUMNS[:-1])]
        self.read = select(*columns, said_at).order_by(outbox.c.number).limit(literal_column(str(BATCH)))
        self.last = select(func.max(outbox.c.number).label("last"))
        self.delete = delete(outbox).where(one_of(outbox.c.number, "numbers"))


_statements_on: Final = lru_cache(maxsize=32)(_Statements)


class Relay:
    """Publishes one database's outbox to the bus in the order of its numbers, each row at least once.

    `topics` are those that only this service publishes to; the relay publishes their watermarks. `floor`
    keeps the watermark below what the service has stored but not yet turned into events.
    """

    def __init__(
        self,
        service: str,
        database: Database,
        bus: EventBus,
        topics: Sequence[str],
        floor: WatermarkFloor | None = None,
    ) -> None:
        self._service = service
        self._database = database
        self._bus = bus
        self._topics = topics
        self._floor = floor
        self._statements = _statements_on(database.messaging_tables.outbox)
        self._watermarked_at: dict[tuple[str, int], float] = {}
        self._interval = AdaptiveInterval()
        self._oldest: datetime | None = None
        self._rows = _ROWS.labels(service)
        self._published = _PUBLISHED.labels(service)
        self._waited = STAGE.labels("relayed", service)
        self._acknowledged = STAGE.labels("acknowledged", service)
        # Computed at scrape time: the age must grow while a publish hangs.
        _AGE.labels(service).set_function(self._age_s)

    def _age_s(self) -> float:
        return 0.0 if self._oldest is None else (datetime.now(UTC) - self._oldest).total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop`, as the only process on this database; what the bus refuses is tried again.

        Where another process relays, this one waits until that process ends.
        """
        async with self._database.leader_lock(f"{self._service}.relay") as is_leader:
            while not stop.is_set():
                if await is_leader():
                    await self._run_round(stop)
                else:
                    await wait_for(stop, STANDBY_POLL_S)

    async def _run_round(self, stop: asyncio.Event) -> None:
        await self._interval.wait()
        began = asyncio.get_running_loop().time()
        self._database.outbox_written.clear()
        try:
            sent = await self._publish_batch()
        except BusUnavailable as error:
            log.warning("outbox.bus_unavailable", service=self._service, error=str(error))
            await wait_for(stop, 0.5)
            return
        if sent == BATCH:  # more rows are waiting
            await asyncio.sleep(0)  # SQLite's calls never suspend: the other tasks get a turn
            return
        if sent:
            self._interval.rest(began, sent)
        await wait_for(self._database.outbox_written, POLL_S)

    async def is_empty(self) -> bool:
        """Whether no row waits to be published."""
        async with self._database.reading() as session:
            return (
                await session.execute(select(self._database.messaging_tables.outbox.c.number).limit(1))
            ).first() is None

    async def _publish_batch(self) -> int:
        """Publish the oldest rows, at most a batch; return how many."""
        rows, watermark = await self._read_batch()
        if rows:
            began = datetime.now(UTC)
            await self._bus.publish(self._messages(rows, watermark))
            self._note_stages(rows, began)
            crash_point(f"{self._service}.outbox.after_ack")
            async with self._database.lossy_transaction() as session:
                await session.execute(self._statements.delete, {"numbers": [row.number for row in rows]})
            self._published.inc(len(rows))
            if len(rows) < BATCH:
                self._oldest = None
        if watermark is not None:
            await self._publish_idle_watermarks(watermark)
        return len(rows)

    def _note_stages(self, rows: Sequence[Row[Any]], began: datetime) -> None:
        took = (datetime.now(UTC) - began).total_seconds()
        began_at = microseconds(began)
        observe_all(self._waited, [max(0.0, (began_at - row.said_at) / 1_000_000) for row in rows])
        observe_all(self._acknowledged, [max(0.0, took)] * len(rows))

    async def _read_batch(self) -> tuple[Sequence[Row[Any]], datetime | None]:
        """The next rows, and a watermark where they are all there is and one is to be published."""
        started = datetime.now(UTC)
        async with self._database.reading() as session:
            rows = (await session.execute(self._statements.read)).all()
            marking = bool(rows) or bool(self._silent_partitions())
            floor = await self._floor(session) if self._floor and marking else None
            waiting = len(rows)
            if waiting == BATCH:
                # Rows leave in the order of their numbers, so the numbers say how many there are.
                last = (await session.execute(self._statements.last)).scalar_one()
                waiting = last - rows[0].number + 1
        self._rows.set(waiting)
        self._oldest = from_microseconds(rows[0].said_at) if rows else None
        complete = marking and len(rows) < BATCH
        return rows, min(started, floor or started) if complete else None

    def _messages(self, rows: Sequence[Row[Any]], watermark: datetime | None) -> list[Message]:
        messages = [
            Message(topic, key, event_id, name, value, traceparent)
            for _, event_id, name, topic, key, value, traceparent, _ in map(tuple, rows)
        ]
        last = {(message.topic, partition_of(message.key)): place for place, message in enumerate(messages)}
        for (topic, partition), place in last.items():
            if watermark is not None and topic in self._topics:
                messages[place] = messages[place]._replace(watermark=watermark)
                self._watermarked_at[topic, partition] = asyncio.get_running_loop().time()
        return messages

    def _silent_partitions(self) -> dict[str, list[int]]:
        """By topic, the partitions without a new watermark for `WATERMARK_S`."""
        now = asyncio.get_running_loop().time()
        found = {
            topic: [
                partition
                for partition in range(PARTITIONS)
                if now - self._watermarked_at.get((topic, partition), -WATERMARK_S) >= WATERMARK_S
            ]
            for topic in self._topics
        }
        return {topic: due for topic, due in found.items() if due}

    async def _publish_idle_watermarks(self, watermark: datetime) -> None:
        now = asyncio.get_running_loop().time()
        for topic, due in self._silent_partitions().items():
            await self._bus.publish_watermarks(topic, watermark, due)
            self._watermarked_at |= {(topic, partition): now for partition in due}
