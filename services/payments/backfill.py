"""Lost webhooks: what Stripe could not deliver is listed and goes into the webhook store.

The cursor is the moment the last complete listing began; each begins 60 s before it, and the store
knows repeats by event id (ARCHITECTURE.md, "Lost webhooks").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import select, update

from backbone.clock import Clock
from backbone.database import Database, microseconds, moment
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
CALM: Final = "backfill.calm"
"""How many looks in a row found nothing new: what a process that does not look itself knows of it."""

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class Backfill:
    """Looks for lost webhooks every `every_s`, in one process of several."""

    def __init__(
        self, database: Database, processor: Processor, store: WebhookStore, clock: Clock, every_s: float
    ) -> None:
        self._database = database
        self._processor = processor
        self._store = store
        self._clock = clock
        self._every_s = every_s
        self._without_news = 0
        self._here = database.is_sqlite

    async def calm_looks(self) -> int:
        """How many looks in a row found nothing new, also where another process looks."""
        if self._here:
            return self._without_news
        return await self._stored(CALM) or 0

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`; a failed look is made again."""
        self._here, self._without_news = True, 0
        try:
            while not stop.is_set():
                try:
                    await self.look()
                except ProcessorError as error:
                    log.warning("backfill.failed", reason=str(error))
                await wait_for(stop, self._every_s)
        finally:
            self._here = self._database.is_sqlite

    async def look(self) -> int:
        """Read what was not delivered; how many events were new. Raises `ProcessorError`."""
        began = self._clock.now()
        cursor = await self._stored(LANE)
        since = (began - FIRST_LOOK if cursor is None else moment(cursor)) - OVERLAP
        new = 0
        after: str | None = None
        for _ in range(MAX_PAGES):
            events, after = await self._processor.list_lost_events(since, after)
            # Stripe lists the newest first; arrival in the order of happening saves work, no more.
            new += await self._store.keep_all(events[::-1])
            if after is None:
                break
        self._without_news = 0 if new else self._without_news + 1
        moved = {CALM: self._without_news}
        if after is None:
            moved[LANE] = microseconds(began)
        await self._keep(moved)
        if new:
            log.info("backfill.found", events=new)
        return new

    async def _stored(self, name: str) -> int | None:
        async with self._database.reading() as session:
            row = (await session.execute(select(LANES.c.cursor).where(LANES.c.name == name))).first()
        return None if row is None else int(row.cursor)

    async def _keep(self, values: Mapping[str, int]) -> None:
        async with self._database.lossy_transaction() as session:
            for name, value in sorted(values.items()):
                row = {"name": name, "holder": "", "until": NEVER, "cursor": value}
                made = await session.execute(inserting_new(session, LANES, "name"), [row])
                if made.first() is None:
                    await session.execute(update(LANES).where(LANES.c.name == name).values(cursor=value))
