"""Applying stored webhooks: recording the facts they tell, in any order and as often as they come.

An event that cannot be applied is set aside with its reason, reported and never lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Gauge, Histogram
from sqlalchemy import Row, bindparam, func, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.adaptive_interval import ROUND_INTERVAL_S
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database, is_transient
from backbone.telemetry import FRESHNESS, STAGE
from services.payments.reconciliation import lookups
from services.payments.recording.record import record
from services.payments.stripe.objects import NOT_TOLD, READERS, ParsedEvent, Unreadable, read_event
from services.payments.tables import APPLIED, IGNORED, QUARANTINED, WAITING, WEBHOOKS
from services.payments.wakeups import wait_for, wake_on_stop
from services.payments.webhooks.foreign import IgnoreReason, OurAccount, count_ignored, ignore_reasons
from services.payments.webhooks.receive import WebhookStore, count_webhook, label_of
from services.payments.webhooks.redaction import without_details

BATCH: Final = 200
GATHER_S: Final = ROUND_INTERVAL_S
POLL_S: Final = 1.0
TRIES: Final = 3
RETRY_S: Final = 0.2

RETRY_BATCH: Final = 20
RETRIES_EVERY_S: Final = 1.0
"""At most RETRY_BATCH set-aside webhooks are tried again each RETRIES_EVERY_S, after what is new."""

FIRST_RETRY: Final = timedelta(minutes=1)
LAST_RETRY: Final = timedelta(hours=6)
"""How long a set-aside webhook waits for its next try: twice as long each time, within these."""

RETRIED_AT_START: Final = 1_000
"""A new version may read what the last could not: this many are tried at a start, whatever their time."""

HOLDS_WATERMARK_BACK: Final = timedelta(minutes=10)
"""How long a set-aside webhook keeps the watermark below its arrival; see `oldest_waiting`."""

log = structlog.get_logger()

_DELAY: Final = Histogram(
    "ataa_webhook_delay_seconds",
    "From Stripe's event to its being applied.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)

_OLDEST: Final = Gauge(
    "ataa_webhooks_oldest_waiting_seconds", "Age of the oldest stored webhook not yet applied."
)
_QUARANTINED_COUNT: Final = Gauge("ataa_webhooks_set_aside", "Webhooks that could not be applied so far.")
_APPLIED: Final = FRESHNESS.labels("applied")
_STAGE: Final = STAGE.labels("applied", "payments")


class Applier:
    """Applies stored webhooks in the order of their arrival, in batches of one transaction each.

    What cannot be applied is set aside and tried again for ever, ever more rarely and never before what
    is new. `ours` tells which events are for us.
    """

    def __init__(self, database: Database, store: WebhookStore, clock: Clock, ours: OurAccount) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._ours = ours
        self._gather = False
        self._retries_at = float("-inf")
        self.applied = asyncio.Event()
        """Set after every batch."""

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until `stop`."""
        try:
            async with wake_on_stop(stop, self._store.news):
                await self.make_retries_due()
                while not stop.is_set():
                    self._store.news.clear()
                    some = await self.apply_waiting()
                    await self._retry_from_time_to_time()
                    if not some:
                        await wait_for(self._store.news, POLL_S)
                        if self._gather:
                            # Under load a short wait makes batches, which cost far less an event.
                            await asyncio.sleep(GATHER_S)
        finally:
            _QUARANTINED_COUNT.set(0)  # whichever process applies next says how many there are

    async def make_retries_due(self) -> None:
        """Let what is set aside be tried again now."""
        first = (
            select(WEBHOOKS.c.number).where(WEBHOOKS.c.state == QUARANTINED).order_by(WEBHOOKS.c.next_try_at)
        )
        async with self._database.transaction() as session:
            chosen = [row.number for row in await session.execute(first.limit(RETRIED_AT_START))]
            hastened = update(WEBHOOKS).where(WEBHOOKS.c.number.in_(chosen), WEBHOOKS.c.state == QUARANTINED)
            if chosen:
                await session.execute(hastened.values(next_try_at=self._clock.now()))

    async def apply_waiting(self) -> int:
        """Apply the next batch; how many there were. One that fails is tried again, one event at a time."""
        waiting = select(WEBHOOKS).where(WEBHOOKS.c.state == WAITING).order_by(WEBHOOKS.c.number)
        async with self._database.reading() as session:
            rows = (await session.execute(waiting.limit(BATCH))).all()
        self._gather = len(rows) > 4
        if rows:
            await self._apply_or_halve(rows)
            self.applied.set()
        return len(rows)

    async def _retry_from_time_to_time(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._retries_at >= RETRIES_EVERY_S:
            await self.retry_quarantined()
            self._retries_at = asyncio.get_running_loop().time()

    async def retry_quarantined(self) -> int:
        """Try some of what was set aside and is due again; how many there were."""
        aside = WEBHOOKS.c.state == QUARANTINED
        # None: set aside by a process of the version before, during an upgrade.
        at = WEBHOOKS.c.next_try_at
        due = select(WEBHOOKS).where(aside, or_(at.is_(None), at <= self._clock.now())).order_by(at)
        async with self._database.reading() as session:
            many = (await session.execute(select(func.count()).where(aside))).scalar_one()
            _QUARANTINED_COUNT.set(many)
            if not many:
                return 0
            rows = (await session.execute(due.limit(RETRY_BATCH))).all()
        if rows:
            await self._apply_or_halve(rows)
            self.applied.set()
        return len(rows)

    async def _apply_or_halve(self, rows: Sequence[Row[Any]]) -> None:
        try:
            await self._apply(rows)
        except Exception as error:
            if is_transient(error):
                raise  # the database is away: nothing can be recorded, not even a failure
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._apply_or_halve(rows[:middle])
                await self._apply_or_halve(rows[middle:])
                return
            await self._note_failure(rows[0], error)

    async def _apply(self, rows: Sequence[Row[Any]]) -> None:
        now = self._clock.now()
        events = [json.loads(row.body) for row in rows]
        ignored = await ignore_reasons(self._database, events, self._ours)
        parsed = [read_event(event) for event, why in zip(events, ignored, strict=True) if why is None]
        async with self._database.transaction() as session:
            await record(session, [each.observation for each in parsed if each.observation is not None], now)
            await _request_lookups(session, parsed, now)
            await _mark_done(session, rows, events, ignored)
            crash_point("payments.applier.before_commit")
        crash_point("payments.applier.after_commit")
        done = self._clock.now()
        for row, why in zip(rows, ignored, strict=True):
            _count_done(row, why, done)

    async def _note_failure(self, row: Row[Any], error: Exception) -> None:
        reason = _reason(error)
        tries = row.tries + 1
        again = row.state == QUARANTINED
        aside = again or tries >= TRIES or isinstance(error, Unreadable)
        values = {"tries": tries, "reason": reason, "state": QUARANTINED if aside else WAITING}
        if aside:
            values["next_try_at"] = self._clock.now() + _pause(tries)
        async with self._database.transaction() as session:
            noted = update(WEBHOOKS).where(WEBHOOKS.c.number == row.number, WEBHOOKS.c.state == row.state)
            await session.execute(noted.values(values))
        count_webhook(row.type, "set_aside" if aside and not again else "failed")
        log.error("webhook.failed", event_id=row.event_id, type=row.type, set_aside=aside, reason=reason)
        if not aside:
            await asyncio.sleep(RETRY_S * tries)


def _pause(tries: int) -> timedelta:
    """How long a webhook waits after having failed so many times."""
    doublings = min(max(0, tries - TRIES), 16)
    return min(FIRST_RETRY * (1 << doublings), LAST_RETRY)


def _reason(error: Exception) -> str:
    """What is kept of an error; a database's without the values of the statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return f"{type(error).__name__}: {cause}"[:2000]


def _count_done(row: Row[Any], why: IgnoreReason | None, done: datetime) -> None:
    if why is not None:
        count_webhook(row.type, "ignored")
        count_ignored(label_of(row.type), why)
        return
    count_webhook(row.type, "applied")
    _DELAY.observe(max(0.0, (done - row.created_at).total_seconds()))
    _APPLIED.observe(max(0.0, (done - row.received_at).total_seconds()))
    _STAGE.observe(max(0.0, (done - row.received_at).total_seconds()))


async def _request_lookups(session: AsyncSession, parsed: Sequence[ParsedEvent], now: datetime) -> None:
    """Note what Stripe is to be asked: refunds it hinted at, captures of facts nobody can place."""
    hints: dict[str, int] = {}
    for each in parsed:
        if each.refunds_of:
            known = hints.setdefault(each.refunds_of, each.refunded)
            hints[each.refunds_of] = known if known == each.refunded else NOT_TOLD
    await lookups.request_refunds_lookup(session, hints, now + timedelta(seconds=2))
    placed = {
        each.observation.intent for each in parsed if each.observation is not None and each.observation.intent
    }
    await lookups.request_capture_lookups(session, placed, now + timedelta(minutes=10))


async def _mark_done(
    session: AsyncSession,
    rows: Sequence[Row[Any]],
    events: Sequence[Any],
    ignored: Sequence[IgnoreReason | None],
) -> None:
    """Mark webhooks applied or ignored, and strike out people's details where there are any."""
    bare: dict[IgnoreReason | None, list[int]] = {}
    struck: list[dict[str, Any]] = []
    for row, event, why in zip(rows, events, ignored, strict=True):
        if (body := without_details(row.body, event)) is not None:
            struck.append({"at_number": row.number, "to_body": body} | _ending("to_", why))
        else:
            bare.setdefault(why, []).append(row.number)
    for why, numbers in bare.items():
        await session.execute(update(WEBHOOKS).where(WEBHOOKS.c.number.in_(numbers)).values(_ending("", why)))
    if struck:
        names = ("body", *_ending("", None))
        await session.execute(
            update(WEBHOOKS)
            .where(WEBHOOKS.c.number == bindparam("at_number"))
            .values({name: bindparam(f"to_{name}") for name in names}),
            struck,
        )


def _ending(prefix: str, why: IgnoreReason | None) -> dict[str, Any]:
    """What a webhook's row says at its end, by column."""
    return {
        f"{prefix}state": APPLIED if why is None else IGNORED,
        f"{prefix}reason": None if why is None else why.value,
        f"{prefix}next_try_at": None,
    }


async def oldest_waiting(session: AsyncSession, now: datetime | None = None) -> datetime | None:
    """When the oldest webhook not yet applied was received: no watermark may be later.

    Money that a set-aside webhook tells of is missing in every figure, so it holds the watermark back too
    and screens say `catching_up`; but only for HOLDS_BACK after its arrival. By then somebody was called
    (AtaaWebhooksSetAside), and one event that no version can read would otherwise hide every real delay,
    on every drive, for good.
    """
    waiting = select(WEBHOOKS.c.received_at).where(WEBHOOKS.c.state == WAITING).order_by(WEBHOOKS.c.number)
    row = (await session.execute(waiting.limit(1))).first()
    oldest: datetime | None = None if row is None else row.received_at
    # As an age at the time of asking: whoever has stopped applying has perhaps stopped reading too.
    _OLDEST.set_function(lambda: 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds())
    aside = await _oldest_quarantined(session, (now or datetime.now(UTC)) - HOLDS_WATERMARK_BACK)
    return min((each for each in (oldest, aside) if each is not None), default=None)


async def _oldest_quarantined(session: AsyncSession, since: datetime) -> datetime | None:
    """When the oldest set-aside webhook about money was received, of those that came after `since`."""
    aside = (WEBHOOKS.c.state == QUARANTINED, WEBHOOKS.c.received_at > since, WEBHOOKS.c.type.in_(READERS))
    found = select(WEBHOOKS.c.received_at).where(*aside).order_by(WEBHOOKS.c.received_at).limit(1)
    row = (await session.execute(found)).first()
    return None if row is None else row.received_at
