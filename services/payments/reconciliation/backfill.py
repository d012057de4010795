"""The backfill of lost webhooks: events that Stripe could not deliver are listed and stored.

A listing begins 60 s before the last complete one began; the store recognises repeats by event id. A run
that reaches its bound, or fails, stores its position, and the next one resumes there (docs/architecture.md,
"Crash safety").
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from backbone.clock import Clock
from backbone.database.columns import from_microseconds, microseconds
from backbone.database.database import Database
from backbone.wakeups import wait_for
from services.payments.cursors import Position, read_position, save_positions
from services.payments.processor import Processor, ProcessorError, Refused
from services.payments.webhooks.receive import WebhookStore

OVERLAP: Final = timedelta(seconds=60)
FIRST_SPAN: Final = timedelta(days=3)
"""The first listing's span: Stripe retries a webhook for three days."""

MAX_PAGES: Final = 200
"""Pages of 100 events read in one run."""

COMPLETED: Final = "backfill"
"""Position: when the last complete listing began."""

LISTING: Final = "backfill.listing"
"""Position: when an incomplete listing began, and the event after which it resumes."""

EMPTY_RUNS: Final = "backfill.calm"
"""Position: the number of consecutive runs without news, for processes that do not run the backfill."""

log = structlog.get_logger()


class Backfill:
    """Lists lost webhooks every `every_s`, in one process at a time; a run reads at most `max_pages`."""

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
        self._reached_bound = False
        self._runs_here = database.is_sqlite

    async def runs_without_news(self) -> int:
        """The number of consecutive complete listings without a new event, also of another process."""
        if self._runs_here:
            return self._runs_without_news
        kept = await read_position(self._database, EMPTY_RUNS)
        return 0 if kept is None else kept.cursor

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`; a run that reached its bound is followed by the next at once."""
        self._runs_here, self._runs_without_news = True, 0
        try:
            while not stop.is_set():
                self._reached_bound = False
                try:
                    await self.run_once()
                except ProcessorError as error:
                    log.warning("backfill.failed", reason=str(error))
                if not self._reached_bound:
                    await wait_for(stop, self._every_s)
        finally:
            self._runs_here = self._database.is_sqlite

    async def run_once(self) -> int:
        """Continue the listing, or begin a new one; returns the number of new events.

        Only a run that read a whole listing and found nothing new counts as one without news. Raises
        `ProcessorError`; the events read before it are stored, and so is the position.
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
                # Stripe lists the newest first. Storing in order of creation only saves work.
                new += await self._store.keep_all(events[::-1])
                if after is None:
                    break
        except ProcessorError as error:
            # An id that Stripe no longer lists would always be refused: the listing restarts.
            position = None if isinstance(error, Refused) else after
            await self._note(began, position, 0 if new or after is not None else self._runs_without_news)
            raise
        self._reached_bound = after is not None
        runs = self._runs_without_news + 1 if whole and after is None and not new else 0
        await self._note(began, after, runs, complete=after is None)
        if new:
            log.info("backfill.found", events=new)
        return new

    async def _since(self, began: datetime) -> datetime:
        last = await read_position(self._database, COMPLETED)
        return (began - FIRST_SPAN if last is None else from_microseconds(last.cursor)) - OVERLAP

    async def _note(self, began: datetime, after: str | None, runs: int, *, complete: bool = False) -> None:
        self._runs_without_news = runs
        at = microseconds(began)
        kept = {EMPTY_RUNS: Position(runs), LISTING: Position(at, after)}
        await save_positions(self._database, kept | ({COMPLETED: Position(at)} if complete else {}))
