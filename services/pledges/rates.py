"""Exchange rates as payments announces them, so that intake asks no other service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from backbone.contracts.payments import ExchangeRateSet
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction, Transaction
from backbone.exchange_rates import Pair, Quote, find_quote, pairs_for
from services.pledges.tables import EXCHANGE_RATES


def _upsert(statement: Any) -> Any:
    """Insert a pair's rate, or replace an older version."""
    replaced = {name: statement.excluded[name] for name in ("version", "rate", "as_of")}
    newer = EXCHANGE_RATES.c.version < statement.excluded.version
    key = ["source_currency", "target_currency"]
    return statement.on_conflict_do_update(index_elements=key, set_=replaced, where=newer)


_UPSERT: Final[Mapping[str, Any]] = {
    "sqlite": _upsert(sqlite.insert(EXCHANGE_RATES)),
    "postgresql": _upsert(postgresql.insert(EXCHANGE_RATES)),
}
_FROM: Final = select(EXCHANGE_RATES).where(one_of(EXCHANGE_RATES.c.source_currency, "sources"))


async def store_rates(events: Sequence[ExchangeRateSet], session: Transaction) -> None:
    """Store the newest rate of each pair."""
    newest: dict[Pair, ExchangeRateSet] = {}
    for event in sorted(events, key=lambda event: event.version):
        newest[event.source_currency, event.target_currency] = event
    rows = [
        {
            "source_currency": pair[0],
            "target_currency": pair[1],
            "version": newest[pair].version,
            "rate": newest[pair].rate,
            "as_of": newest[pair].as_of,
        }
        for pair in sorted(newest)
    ]
    await session.execute(_UPSERT[session.dialect.name], rows)


async def current_rates(session: Transaction, pairs: Iterable[Pair], at: datetime) -> dict[Pair, str]:
    """The rates at which pledges are accepted at this moment; pairs without a fresh one are left out."""
    wanted = list(pairs)
    sources = sorted({source for pair in wanted for source, _ in pairs_for(*pair)})
    rows = await session.execute(_FROM, {"sources": sources})
    known = {(row.source_currency, row.target_currency): Quote(row.rate, row.as_of) for row in rows}
    found = {pair: find_quote(*pair, known, at) for pair in wanted}
    return {pair: quote.rate for pair, quote in found.items() if quote is not None}


def known_quotes(transaction: SyncTransaction, pairs: Iterable[Pair]) -> dict[Pair, Quote]:
    """The rates from which those of these pairs follow; without a pair, no statement."""
    sources = sorted({source for pair in pairs for source, _ in pairs_for(*pair)})
    if not sources:
        return {}
    rows = transaction.execute(_FROM, {"sources": sources})
    return {(row.source_currency, row.target_currency): Quote(row.rate, row.as_of) for row in rows}
