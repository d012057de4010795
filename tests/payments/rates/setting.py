"""Exchange rates that are set behind the API."""

from __future__ import annotations

from backbone.exchange_rates import Quote
from services.payments.rates.store import OfferedRate, offer
from tests.payments.books import Books


async def set_rate(books: Books, source: str, rate: str, target: str = "USD") -> None:
    """Set a rate as an admin who confirms it."""
    now = books.clock.now()
    async with books.database.transaction() as session:
        offered = OfferedRate((source, target), Quote(rate, now), "api", "key_a", confirmed=True)
        assert await offer(session, offered, now) is None
