"""The loop that applies stored webhooks (`batch.py`), isolates the one that fails, and retries it.

An event that cannot be applied is quarantined with its reason, reported and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import DBAPIError

from backbone.adaptive_interval import ROUND_INTERVAL_S
from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.wakeups import wait_for, wake_on_stop
from services.payments.stripe.objects import Unreadable
from services.payments.tables import QUARANTINED, WAITING, WEBHOOKS
from services.payments.webhooks.batch import STORED_WEBHOOK, StoredWebhook, apply_batch
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.receive import WebhookStore, count_webhook

BATCH: Final = 200
GATHER_S: Final = ROUND_INTERVAL_S
POLL_S: Final = 1.0
TRIES: Final = 3
RETRY_S: Final = 0.2

RETRY_BATCH: Final = 20
RETRIES_EVERY_S: Final = 1.0
"""At most RETRY_BATCH quarantined webhooks are retried every RETRIES_EVERY_S, after new ones."""

FIRST_RETRY: Final = timedelta(minutes=1)
LAST_RETRY: Final = timedelta(hours=6)
"""Bounds of the delay before a quarantined webhook's next retry; it doubles each time."""

RETRIED_AT_START: Final = 1_000
"""At a start, this many are retried before they are due: a new version may be able to read them."""

log = structlog.get_logger()


_QUARANTINED_COUNT: Final = Gauge("ataa_webhooks_set_aside", "Webhooks that could not be applied so far.")


class Applier:
    """Applies stored webhooks in the order of their arrival, in batches of one transaction each.

    A webhook that cannot be applied is quarantined and retried for ever, with exponential backoff and never
    before new ones. `ours` decides which events are for us.
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
                    await self._retry_periodically()
                    if not some:
                        await wait_for(self._store.news, POLL_S)
                        if self._gather:
                            # Under load, a short wait gathers batches, which cost far less for each event.
                            await asyncio.sleep(GATHER_S)
        finally:
            _QUARANTINED_COUNT.set(0)  # the next leader sets it

    async def make_retries_due(self) -> None:
        """Make the quarantined webhooks due, at most RETRIED_AT_START."""
        first = (
            select(WEBHOOKS.c.number).where(WEBHOOKS.c.state == QUARANTINED).order_by(WEBHOOKS.c.next_try_at)
        )
        async with self._database.transaction() as session:
            chosen = [row.number for row in await session.execute(first.limit(RETRIED_AT_START))]
            hastened = update(WEBHOOKS).where(WEBHOOKS.c.number.in_(chosen), WEBHOOKS.c.state == QUARANTINED)
            if chosen:
                await session.execute(hastened.values(next_try_at=self._clock.now()))

    async def apply_waiting(self) -> int:
        """Apply the next batch; returns its size. A failing batch is bisected down to the failing event."""
        waiting = select(*STORED_WEBHOOK).where(WEBHOOKS.c.state == WAITING).order_by(WEBHOOKS.c.number)
        async with self._database.reading() as session:
            rows = [StoredWebhook(*row) for row in await session.execute(waiting.limit(BATCH))]
        self._gather = len(rows) > 4
        if rows:
            await self._apply_or_halve(rows)
            self.applied.set()
        return len(rows)

    async def _retry_periodically(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._retries_at >= RETRIES_EVERY_S:
            await self.retry_quarantined()
            self._retries_at = asyncio.get_running_loop().time()

    async def retry_quarantined(self) -> int:
        """Retry quarantined webhooks that are due, at most RETRY_BATCH; returns how many."""
        aside = WEBHOOKS.c.state == QUARANTINED
        # None: quarantined by a process of the previous version, during an upgrade.
        at = WEBHOOKS.c.next_try_at
        due = select(*STORED_WEBHOOK).where(aside, or_(at.is_(None), at <= self._clock.now())).order_by(at)
        async with self._database.reading() as session:
            many = (await session.execute(select(func.count()).where(aside))).scalar_one()
            _QUARANTINED_COUNT.set(many)
            if not many:
                return 0
            rows = [StoredWebhook(*row) for row in await session.execute(due.limit(RETRY_BATCH))]
        if rows:
            await self._apply_or_halve(rows)
            self.applied.set()
        return len(rows)

    async def _apply_or_halve(self, rows: Sequence[StoredWebhook]) -> None:
        try:
            await self._apply(rows)
        except Exception as error:
            if is_transient(error):
                raise  # the database is unavailable: not even the failure can be recorded
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._apply_or_halve(rows[:middle])
                await self._apply_or_halve(rows[middle:])
                return
            await self._note_failure(rows[0], error)

    async def _apply(self, rows: Sequence[StoredWebhook]) -> None:
        await apply_batch(self._database, self._ours, rows, self._clock)

    async def _note_failure(self, row: StoredWebhook, error: Exception) -> None:
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
    """The delay before the next retry after `tries` failures."""
    doublings = min(max(0, tries - TRIES), 16)
    return min(FIRST_RETRY * (1 << doublings), LAST_RETRY)


def _reason(error: Exception) -> str:
    """An error as stored: a database error without the statement's values (personal details)."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return f"{type(error).__name__}: {cause}"[:2000]
