"""Lost webhooks: what Stripe could not deliver is listed and goes into the webhook store.

The cursor is the moment the last complete listing began; each begins 60 s before it, and the store
knows repeats by event id (ARCHITECTURE.md, "Lost webhooks").
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import select, update

from backbone.clock import Clock
from backbone.database import Database, microseconds, moment
from services.payments.lease import NEVER
from services.payments.processor import Processor, ProcessorError
from services.payments.statements import inserting_new
from services.payments.tables import LANES
from services.payments.waking import wait_for
from services.payments.webhooks import WebhookStore

OVERLAP: Final = timedelta(seconds=60)
FIRST_LOOK: Final = timedelta(days=3)
"""Stripe retries a webhook for three days; before the first backfill nothing older is missing."""

MAX_PAGES: Final = 200
LANE: Final = "backfill"

log = structlog.get_logger()


class Backfill:
    """Looks for lost webhooks every `every_s`; `without_news` counts the looks that found nothing new."""

    def __init__(
        self, database: Database, processor: Processor, store: WebhookStore, clock: Clock, every_s: float
    ) -> None:
        self._database = database
        self._processor = processor
        self._store = store
        self._clock = clock
        self._every_s = every_s
        self.without_news = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`; a failed look is made again."""
        while not stop.is_set():
            try:
                await self.look()
            except ProcessorError as error:
                log.warning("backfill.failed", reason=str(error))
            await wait_for(stop, self._every_s)

    async def look(self) -> int:
        """Read what was not delivered; how many events were new. Raises `ProcessorError`."""
        began = self._clock.now()
        cursor = await self._cursor()
        since = (cursor or began - FIRST_LOOK) - OVERLAP
        new = 0
        after: str | None = None
        for _ in range(MAX_PAGES):
            events, after = await self._processor.list_lost_events(since, after)
            # Stripe lists the newest first; arrival in the order of happening saves work, no more.
            new += await self._store.keep_all(events[::-1])
            if after is None:
                break
        if after is None:
            await self._move(began)
        self.without_news = 0 if new else self.without_news + 1
        if new:
            log.info("backfill.found", events=new)
        return new

    async def _cursor(self) -> datetime | None:
        async with self._database.reading() as session:
            row = (await session.execute(select(LANES.c.cursor).where(LANES.c.name == LANE))).first()
        return None if row is None else moment(row.cursor)

    async def _move(self, at: datetime) -> None:
        cursor = microseconds(at)
        async with self._database.lossy_transaction() as session:
            row = {"name": LANE, "holder": "", "until": NEVER, "cursor": cursor}
            made = await session.execute(inserting_new(session, LANES, "name"), [row])
            if made.first() is None:
                await session.execute(update(LANES).where(LANES.c.name == LANE).values(cursor=cursor))
