"""Lost webhooks: what Stripe could not deliver is listed and goes into the webhook store.

A listing begins 60 s before the last complete one began, and the store knows repeats by event id. A look
that reaches its bound, or fails, keeps its place: the next one goes on there (architecture.md, "Why a crash
at any line is harmless").
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from backbone.clock import Clock
from backbone.database.database import Database, from_microseconds, microseconds
from services.payments.cursors import Position, read_position, save_positions
from services.payments.processor import Processor, ProcessorError, Refused
from services.payments.wakeups import wait_for
from services.payments.webhooks.receive import WebhookStore

OVERLAP: Final = timedelta(seconds=60)
FIRST_SPAN: Final = timedelta(days=3)
"""Stripe retries a webhook for three days; before the first backfill nothing older is missing."""

MAX_PAGES: Final = 200
"""Pages of 100 events read in one look."""

COMPLETED: Final = "backfill"
"""When the last complete listing began."""

LISTING: Final = "backfill.listing"
"""When a listing began that is not complete, and the event after which it goes on."""

CALM: Final = "backfill.calm"
"""How many looks in a row found nothing new: what a process that does not look itself knows of it."""

log = structlog.get_logger()


class Backfill:
    """Looks for lost webhooks every `every_s`, in one process of several; a look reads `max_pages`."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        store: WebhookStore,
        clock: Clock,
        every_s: float,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._database = database
        self._processor = processor
        self._store = store
        self._clock = clock
        self._every_s = every_s
        self._max_pages = max_pages
        self._runs_without_news = 0
        self._more = False
        self._here = database.is_sqlite

    async def runs_without_news(self) -> int:
        """How many whole listings in a row found nothing new, also where another process looks."""
        if self._here:
            return self._runs_without_news
        kept = await read_position(self._database, CALM)
        return 0 if kept is None else kept.cursor

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`; a look that reached its bound is followed by the next at once."""
        self._here, self._runs_without_news = True, 0
        try:
            while not stop.is_set():
                self._more = False
                try:
                    await self.run_once()
                except ProcessorError as error:
                    log.warning("backfill.failed", reason=str(error))
                if not self._more:
                    await wait_for(stop, self._every_s)
        finally:
            self._here = self._database.is_sqlite

    async def run_once(self) -> int:
        """Read on in what was not delivered; how many events were new.

        Only a look that read a whole listing by itself and found nothing new is calm. Raises
        `ProcessorError`; what was read before it is kept, and so is the place.
        """
        listing = await read_position(self._database, LISTING)
        whole = listing is None or listing.resume_after is None
        began = self._clock.now() if listing is None or whole else from_microseconds(listing.cursor)
        after = None if listing is None else listing.resume_after
        since = await self._since(began)
        new = 0
        try:
            for _ in range(self._max_pages):
                events, after = await self._processor.list_lost_events(since, after)
                # Stripe lists the newest first; arrival in the order of happening saves work, no more.
                new += await self._store.keep_all(events[::-1])
                if after is None:
                    break
        except ProcessorError as error:
            # An id that Stripe no longer lists would be refused for ever: the listing begins anew.
            place = None if isinstance(error, Refused) else after
            await self._note(began, place, 0 if new or after is not None else self._runs_without_news)
            raise
        self._more = after is not None
        calm = self._runs_without_news + 1 if whole and after is None and not new else 0
        await self._note(began, after, calm, complete=after is None)
        if new:
            log.info("backfill.found", events=new)
        return new

    async def _since(self, began: datetime) -> datetime:
        last = await read_position(self._database, COMPLETED)
        return (began - FIRST_SPAN if last is None else from_microseconds(last.cursor)) - OVERLAP

    async def _note(self, began: datetime, after: str | None, calm: int, *, complete: bool = False) -> None:
        self._runs_without_news = calm
        at = microseconds(began)
        kept = {CALM: Position(calm), LISTING: Position(at, after)}
        await save_positions(self._database, kept | ({COMPLETED: Position(at)} if complete else {}))
