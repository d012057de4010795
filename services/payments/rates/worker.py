"""The worker that reads the list of rates, and measures how old the rates are that drives need."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import select

from backbone.clock import Clock
from backbone.contracts.pledges import DriveState
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.exchange_rates import PIVOT, Pair, Quote
from backbone.wakeups import wait_for
from services.payments.rates.domain import DAY, Refusal
from services.payments.rates.ecb import UnreadableRates, read_list
from services.payments.rates.store import OfferedRate, find_rates, offer
from services.payments.tables import DRIVES

MEASURE_S: Final = 60.0
RETRY_S: Final = 60.0
"""How soon a list that could not be read is read again."""

log = structlog.get_logger()

_FAILED: Final = Counter(
    "ataa_exchange_rate_reads_failed_total", "Reads of the list of exchange rates (ATAA_RATES) that failed."
)
_AGE: Final = Gauge(
    "ataa_exchange_rate_age_seconds", "Age of the oldest exchange rate that a live or paused drive uses."
)
_MISSING: Final = Gauge(
    "ataa_exchange_rates_missing",
    "Currencies that live or paused drives take and that have no exchange rate of the last seven days.",
)
_OPEN: Final = select(DRIVES.c.currency, DRIVES.c.currencies).where(
    DRIVES.c.state.in_((DriveState.LIVE, DriveState.PAUSED)), DRIVES.c.currencies.is_not(None)
)


class RateReader:
    """Reads `source` every `every_s`, where there is one, and measures the ages each minute."""

    def __init__(self, database: Database, clock: Clock, source: str, *, every_s: float) -> None:
        self._database = database
        self._clock = clock
        self._source = source
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """Read and measure until `stop`."""
        loop = asyncio.get_running_loop()
        next_read = loop.time()
        while not stop.is_set():
            if self._source and loop.time() >= next_read:
                was_read = await self._try_read()
                next_read = loop.time() + (self._every_s if was_read else min(RETRY_S, self._every_s))
            await self.measure()
            await wait_for(stop, min(MEASURE_S, self._every_s))

    async def _try_read(self) -> bool:
        try:
            await self.read()
        except UnreadableRates as error:
            _FAILED.inc()
            log.warning("exchange_rates.unreadable", source=self._source, reason=str(error))
            return False
        return True

    async def read(self) -> dict[str, Refusal]:
        """Read the list once and offer its rates; returns the currencies whose rates were refused.

        Raises `UnreadableRates`; then no rate of it is taken.
        """
        found = await read_list(self._source)
        now = self._clock.now()
        if found.as_of > now + DAY:  # every later rate would be refused as the older one
            raise UnreadableRates(f"its newest day is in the future: {found.as_of.date()}")
        refused: dict[str, Refusal] = {}
        async with self._database.transaction() as session:
            for currency, rate in sorted(found.rates.items()):
                offered = OfferedRate((PIVOT, currency), Quote(rate, found.as_of), "ecb")
                reason = await offer(session, offered, now)
                if reason is not None:
                    refused[currency] = reason
        crash_point("payments.rates.after_read")
        return refused

    async def measure(self) -> None:
        """Set the gauges of the ages and of what is missing."""
        now = self._clock.now()
        async with self._database.reading() as session:
            needed: set[Pair] = {
                (currency, row.currency)
                for row in await session.execute(_OPEN)
                for currency in row.currencies
                if currency != row.currency
            }
            found = await find_rates(session, needed, now)
        ages = [(now - quote.as_of).total_seconds() for quote in found.values()]
        _AGE.set(max(ages, default=0.0))
        _MISSING.set(len(needed) - len(found))
