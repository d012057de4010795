"""The loop that applies stored webhooks (`batch.py`), isolates the one that fails, and retries it.

An event that cannot be applied is quarantined with its reason, reported and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import bindparam, func, or_, select, text, update

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.durable_work import DurableWork, Failed, Failure
from services.payments.stripe.objects import Unreadable
from services.payments.tables import (
    QUARANTINED,
    WAITING,
    WEBHOOKS,
    WEBHOOKS_QUARANTINED,
    WEBHOOKS_WAITING,
)
from services.payments.webhooks.batch import STORED_WEBHOOK, StoredWebhook, apply_batch
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.receive import WebhookStore, count_webhook

BATCH: Final = 200
POLL_S: Final = 1.0
TRIES: Final = 3
"""A webhook that has failed so often is quarantined."""

RETRY_S: Final = 0.2

RETRY_BATCH: Final = 20
RETRIES_EVERY_S: Final = 1.0
"""At most RETRY_BATCH quarantined webhooks are retried every RETRIES_EVERY_S, after new ones."""

FIRST_RETRY: Final = timedelta(minutes=1)
LAST_RETRY: Final = timedelta(hours=6)
"""Bounds of the delay before a quarantined webhook's next retry; it doubles each time."""

RETRIED_AT_START: Final = 1_000
"""At a start, this many are retried before they are due: a new version may be able to read them."""

_QUARANTINED_COUNT: Final = Gauge("ataa_webhooks_set_aside", "Webhooks that could not be applied so far.")


_WAITING: Final = (
    select(*STORED_WEBHOOK).where(text(WEBHOOKS_WAITING)).order_by(WEBHOOKS.c.number).limit(BATCH)
)
_COUNT_QUARANTINED: Final = select(func.count()).select_from(WEBHOOKS).where(text(WEBHOOKS_QUARANTINED))
_QUARANTINED_DUE: Final = (
    select(*STORED_WEBHOOK)
    # None: quarantined by a process of the previous version, during an upgrade.
    .where(
        text(WEBHOOKS_QUARANTINED),
        or_(WEBHOOKS.c.next_try_at.is_(None), WEBHOOKS.c.next_try_at <= bindparam("now")),
    )
    .order_by(WEBHOOKS.c.next_try_at)
    .limit(RETRY_BATCH)
)


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
        self._retries_at = float("-inf")
        self._retries_next = False
        self.work = DurableWork(
            "payments.applier", self, retry_after=_retry_after, permanent=(Unreadable,), poll_s=POLL_S
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until `stop`."""
        try:
            await self.make_retries_due()
            await self.work.run(stop, self._store.news)
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

    async def fetch_due(self) -> Sequence[StoredWebhook]:
        """See `WorkQueue`: new webhooks and, each RETRIES_EVERY_S, quarantined ones after a batch."""
        if self._retries_next:
            self._retries_next = False
            if retries := await self.quarantined_due():
                return retries
        waiting = await self.waiting()
        now = asyncio.get_running_loop().time()
        if now - self._retries_at < RETRIES_EVERY_S:
            return waiting
        self._retries_at = now
        self._retries_next = bool(waiting)
        return waiting or await self.quarantined_due()

    async def waiting(self) -> Sequence[StoredWebhook]:
        """Read the oldest new webhooks, a batch at most."""
        async with self._database.reading() as session:
            return [StoredWebhook(*row) for row in await session.execute(_WAITING)]

    async def quarantined_due(self) -> Sequence[StoredWebhook]:
        """Read the quarantined webhooks that are due, at most RETRY_BATCH, and count all of them."""
        async with self._database.reading() as session:
            count = (await session.execute(_COUNT_QUARANTINED)).scalar_one()
            _QUARANTINED_COUNT.set(count)
            if not count:
                return ()
            due = await session.execute(_QUARANTINED_DUE, {"now": self._clock.now()})
            return [StoredWebhook(*row) for row in due]

    async def run_batch(self, batch: Sequence[StoredWebhook]) -> Sequence[Failed[StoredWebhook]]:
        """See `WorkQueue`."""
        await apply_batch(self._database, self._ours, batch, self._clock)
        return ()

    def label(self, item: StoredWebhook) -> str:
        """See `WorkQueue`."""
        return f"{item.event_id} {item.type}"

    def failures(self, item: StoredWebhook) -> int:
        """See `WorkQueue`."""
        return int(item.tries)

    async def retry(self, item: StoredWebhook, failure: Failure) -> None:
        """See `WorkQueue`. A new webhook keeps its place, so a moment passes before the next try."""
        if item.state == QUARANTINED:
            await self.quarantine(item, failure)
            return
        await self._note_failure(item, failure, {"state": WAITING})
        count_webhook(item.type, "failed")
        await asyncio.sleep(RETRY_S * min(failure.attempts, TRIES))

    async def quarantine(self, item: StoredWebhook, failure: Failure) -> None:
        """See `WorkQueue`."""
        next_try_at = self._clock.now() + _pause(failure.attempts)
        await self._note_failure(item, failure, {"state": QUARANTINED, "next_try_at": next_try_at})
        count_webhook(item.type, "failed" if item.state == QUARANTINED else "set_aside")

    async def _note_failure(self, row: StoredWebhook, failure: Failure, values: dict[str, Any]) -> None:
        noted = update(WEBHOOKS).where(WEBHOOKS.c.number == row.number, WEBHOOKS.c.state == row.state)
        values = {"tries": failure.attempts, "reason": failure.reason} | values
        async with self._database.transaction() as session:
            await session.execute(noted.values(values))


def _retry_after(failures: int) -> timedelta | None:
    return timedelta(seconds=RETRY_S * failures) if failures < TRIES else None


def _pause(failures: int) -> timedelta:
    """The delay before a quarantined webhook's next retry."""
    doublings = min(max(0, failures - TRIES), 16)
    return min(FIRST_RETRY * (1 << doublings), LAST_RETRY)
