"""A consumer group's reader: batches in one transaction each, events once, failing events as dead letters."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from backbone.adaptive_interval import AdaptiveInterval
from backbone.bus.protocol import (
    BusUnavailable,
    EventBus,
    Message,
    Partition,
    Positions,
    Record,
    Subscription,
)
from backbone.contracts.event import Event, decode
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.database.transient import TransientFailure, is_transient, transient_failure
from backbone.messaging import inbox
from backbone.messaging.outbox import announce_message
from backbone.telemetry import STAGE, observe_all

MAX_RECORDS: Final = 500
CATCHING_UP: Final = 4
"""After a full batch, the next one may have so many times as many records, and begins without a rest."""
MAX_ATTEMPTS: Final = 3
RETRY_S: Final = 0.1
SKIP_AFTER_WATERMARKS: Final = 60
"""So many consecutive watermarks are skipped together: a minute's on an idle partition."""

log = structlog.get_logger()

_HANDLED = Counter("ataa_consumer_events_total", "Events handled.", ["group"])
_DEAD_LETTERS = Counter("ataa_consumer_dead_letters_total", "Events given up on.", ["group"])
_LAG = Gauge("ataa_consumer_lag_records", "Records on the bus not yet handled.", ["group", "topic"])
_OWNED = Gauge("ataa_consumer_partitions", "Partitions this process reads.", ["group"])

Handler = Callable[[Sequence[Any], Transaction], Awaitable[None]]
Handlers = Mapping[type[Event], Handler]
"""The handler of each kind of event, called in this order within a batch; other kinds are skipped."""


class Consumer:
    """Reads `topics` as `group` into `handlers`, and knows how far each input partition is complete.

    `watermarks[p]` is a moment: everything committed by p's producer before it has been handled. It moves
    on while p is `owned_partitions()`. `assigned` is set whenever partitions were assigned.
    """

    def __init__(
        self,
        group: str,
        bus: EventBus,
        topics: Sequence[str],
        handlers: Handlers,
        database: Database,
        *,
        max_records: int = MAX_RECORDS,
        assigned: asyncio.Event | None = None,
    ) -> None:
        self.group = group
        self.watermarks: dict[Partition, datetime] = {}
        self.is_behind = False
        """Whether the last batch was full, so that more records are waiting."""
        self.handled = asyncio.Event()
        """Set after every batch and every watermark."""
        self._bus = bus
        self._topics = topics
        self._handlers = handlers
        self._database = database
        self._max_records = max_records
        self._assigned = assigned or asyncio.Event()
        self._expected: dict[Partition, int] = {}
        self._terms: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._subscription: Subscription | None = None
        self._in_progress: Sequence[Record] = ()
        self._interval = AdaptiveInterval()
        self._handled_total = _HANDLED.labels(group)
        self._dead_letters = _DEAD_LETTERS.labels(group)
        self._fetched = STAGE.labels("fetched", group)
        self._batch = STAGE.labels("handled", group)
        _OWNED.labels(group).set_function(lambda: len(self.owned_partitions()))
        # Computed at scrape time: a consumer that is stuck must not look up to date.
        for topic in topics:
            _LAG.labels(group, topic).set_function(partial(self._lag, topic))

    def owned_partitions(self) -> dict[Partition, int]:
        """The partitions that are this member's at present, positions loaded, each with its term.

        A new term begins where another member may have handled something since this one last did.
        """
        if self._subscription is None:
            return {}
        return {one: self._terms[one] for one in self._subscription.assignment() if one in self._terms}

    async def behind(self) -> int:
        """Records published that the group has not handled, whichever member reads them.

        At least 1 where it is unknown: while the group is not joined, or the bus does not answer.
        """
        subscription = self._subscription
        if subscription is None:
            return 1
        try:
            waiting = sum((await subscription.group_lag()).values())
        except BusUnavailable:
            waiting = max(1, sum(subscription.lag().values()))
        return waiting + sum(bool(record.name) for record in self._in_progress)

    def _lag(self, topic: str) -> float:
        """Records of `topic` not yet handled; not a number while the group is not joined."""
        if self._subscription is None:
            return float("nan")
        waiting = sum(n for partition, n in self._subscription.lag().items() if partition.topic == topic)
        return waiting + sum(record.partition.topic == topic for record in self._in_progress if record.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; transient database errors are retried, and fencing reloads the positions."""
        self._subscription = subscription = await self._bus.subscribe(self.group, self._topics, self._load)
        try:
            while not stop.is_set():
                await self._interval.wait()
                at_most = self._max_records * (CATCHING_UP if self.is_behind else 1)
                records = await subscription.fetch(at_most, 0.5)
                self.is_behind = len(records) >= self._max_records
                began = asyncio.get_running_loop().time()
                self._in_progress = records
                if records:
                    await self._process(records, subscription)
                    self._in_progress = ()
                    if self.is_behind:
                        await asyncio.sleep(0)  # SQLite's calls never suspend: the other tasks get a turn
                    else:
                        self._interval.rest(began, sum(bool(record.name) for record in records))
        finally:
            self._subscription = None
            await subscription.close()

    async def _load(self, partitions: Sequence[Partition]) -> Positions:
        known = await inbox.load_positions(self._database, self.group, partitions)
        held = self._subscription.assignment() if self._subscription else frozenset(partitions)
        for lost in self.watermarks.keys() - held:
            del self.watermarks[lost]
        for one in partitions:
            position = known.get(one, 0)
            if one not in self._terms or self._expected.get(one) != position:
                self._terms[one] = self._terms.get(one, 0) + 1
            self._expected[one] = position
            self._committed.pop(one, None)
        self._assigned.set()
        return known

    async def _process(self, records: Sequence[Record], subscription: Subscription) -> None:
        events_read = [record for record in records if record.name]
        try:
            if events_read:
                began = time.time()
                await self._handle_or_bisect(events_read)
                self._note_stages(events_read, began)
            await self._skip_watermarks(records)
        except inbox.Fenced:
            log.warning("consumer.fenced", group=self.group)
            await subscription.seek(await self._load(sorted(subscription.assignment())))
            return
        self._note_watermarks(records)
        self.handled.set()
        crash_point(f"{self.group}.consumer.after_commit")
        # Watermarks too: the other members see the progress of this one only in its committed offsets.
        after = inbox.next_positions(records)
        to_commit = {one: offset for one, offset in after.items() if self._committed.get(one) != offset}
        if to_commit:
            self._committed |= to_commit
            await subscription.commit(to_commit)

    def _note_stages(self, records: Sequence[Record], began: float) -> None:
        took = max(0.0, time.time() - began)
        observe_all(
            self._fetched,
            [max(0.0, began - record.published_at) for record in records if record.published_at],
        )
        observe_all(self._batch, [took] * len(records))

    def _note_watermarks(self, records: Sequence[Record]) -> None:
        """Keep the newest watermarks: a relay that was stalled may publish an old one late."""
        for record in records:
            if record.watermark is not None:
                known = self.watermarks.get(record.partition, record.watermark)
                self.watermarks[record.partition] = max(known, record.watermark)

    async def _skip_watermarks(self, records: Sequence[Record]) -> None:
        """Move past watermarks once there are many, or a restart after an idle day reads them all again.

        On the embedded bus they are no records of their own.
        """
        after = inbox.next_positions(records)
        partitions_far_ahead = {
            one
            for one, offset in after.items()
            if offset - self._expected.get(one, 0) >= SKIP_AFTER_WATERMARKS
        }
        skipped = [record for record in records if record.partition in partitions_far_ahead]
        if not skipped:
            return
        try:
            async with self._database.lossy_transaction() as session:
                await inbox.advance(session, self.group, skipped, self._expected)
        except Exception as error:
            if is_transient(error):
                return  # the next ones will do
            raise
        self._expected |= inbox.next_positions(skipped)

    async def _handle_or_bisect(self, records: Sequence[Record]) -> None:
        """Handle `records`; bisect those that fail until the failing record is alone."""
        reason = await self._handle_with_retries(records)
        if reason is None:
            return
        if len(records) == 1:
            await self._dead_letter(records[0], reason)
            return
        middle = len(records) // 2
        await self._handle_or_bisect(records[:middle])
        await self._handle_or_bisect(records[middle:])

    async def _handle_with_retries(self, records: Sequence[Record]) -> str | None:
        """None once `records` are handled, else why they cannot be.

        A transient error does not depend on the records, and nothing can be recorded while it lasts, so the
        batch is retried without limit. A batch that is repeatedly too slow is halved: it may be too large.
        """
        attempts = 0
        while True:
            try:
                await self._handle(records)
            except inbox.Fenced:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                transient, slow = is_transient(error), transient_failure(error) is TransientFailure.SLOW
            else:
                return None
            attempts += 1
            if transient:
                if slow and len(records) > 1 and attempts >= MAX_ATTEMPTS:
                    return reason
                log.warning(
                    "consumer.database_unavailable", group=self.group, attempts=attempts, reason=reason[:200]
                )
            elif len(records) > 1 or attempts >= MAX_ATTEMPTS:
                return reason
            await asyncio.sleep(min(RETRY_S * 2 ** min(attempts, 5), 2.0))

    async def _handle(self, records: Sequence[Record]) -> None:
        async with self._database.transaction() as session:
            await inbox.advance(session, self.group, records, self._expected)
            fresh = await inbox.record_new(session, self.group, records)
            events = [event for record in fresh if (event := decode(record.name, record.value)) is not None]
            for kind, handle in self._handlers.items():
                if chosen := [event for event in events if type(event) is kind]:
                    await handle(chosen, session)
            crash_point(f"{self.group}.consumer.before_commit")
        self._expected |= inbox.next_positions(records)
        self._handled_total.inc(len(records))

    async def _dead_letter(self, record: Record, reason: str) -> None:
        """Record a dead letter with its reason, in the transaction that moves past the failing record."""
        dead_letter = {
            "topic": record.partition.topic,
            "partition": record.partition.number,
            "offset": record.offset,
            "reason": reason[:2000],
            "value": record.value.decode("utf-8", "replace"),
        }
        async with self._database.transaction() as session:
            await inbox.advance(session, self.group, [record], self._expected)
            message = Message(
                topic=f"{self.group}.dead-letter",
                key=record.key,
                id=record.id,
                name=record.name,
                value=json.dumps(dead_letter).encode(),
                traceparent=record.traceparent,
            )
            await announce_message(session, message)
        self._expected |= inbox.next_positions([record])
        self._dead_letters.inc()
        log.error(
            "consumer.dead_letter", group=self.group, event_id=record.id, name=record.name, reason=reason
        )
