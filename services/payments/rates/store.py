"""Storing and reading exchange rates, each in its caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter
from sqlalchemy import Row, and_, bindparam, func, insert, select, text

from backbone.contracts.payments import ExchangeRateSet
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.exchange_rates import Pair, Quote, find_quote, pairs_for
from backbone.messaging.outbox import announce
from services.payments.rates.domain import KnownRate, Refusal, refusal
from services.payments.rates.tables import ACCEPTED, EXCHANGE_RATES
from services.payments.statements import lock_intents

MAX_COMPARED: Final = 100
"""Rates of a pair with which a new one is compared."""

log = structlog.get_logger()

_REFUSED: Final = Counter(
    "ataa_exchange_rates_refused_total", "Exchange rates that were refused.", ["source", "reason"]
)
for _source in ("api", "ecb"):
    for _reason in Refusal:
        _REFUSED.labels(_source, _reason)


class OfferedRate(NamedTuple):
    """A rate that is offered: `source` is api or ecb, `key_id` the admin's key."""

    pair: Pair
    quote: Quote
    source: str
    key_id: str | None = None
    confirmed: bool = False


async def offer(session: Transaction, offered: OfferedRate, now: datetime) -> Refusal | None:
    """Store a rate and announce it, or refuse it. Repeating the newest one changes nothing.

    A refused rate of the ECB's list is stored with the reason, so that it is listed; one of the API is not.
    Transactions that offer rates of a pair wait for each other.
    """
    await lock_intents(session, ["/".join(("rate", *offered.pair))])
    of_pair = {"source": offered.pair[0], "target": offered.pair[1]}
    known = [
        KnownRate(Quote(row.rate, row.as_of), row.set_at, row.confirmed)
        for row in await session.execute(_KNOWN, of_pair)
    ]
    if known and known[0].quote == offered.quote and known[0].confirmed >= offered.confirmed:
        return None
    refused = refusal(offered.quote, known, now, confirmed=offered.confirmed)
    if refused is not None and await _is_repeated(session, offered, refused):
        return refused
    if refused is not None:
        _REFUSED.labels(offered.source, refused).inc()
        log.warning(
            "exchange_rate.refused", pair="/".join(offered.pair), rate=offered.quote.rate,
            newest=known[0].quote.rate if known else None, source=offered.source, reason=refused,
        )  # fmt: skip
    if refused is None or offered.source != "api":
        await _store(session, offered, refused, now)
    return refused


async def _is_repeated(session: Transaction, offered: OfferedRate, refused: Refusal) -> bool:
    """Whether the list still has a rate that was refused before, or an older one than is known."""
    if offered.source == "api":
        return False
    if refused is Refusal.OLDER:
        return True  # an admin set a newer one: nothing is wrong with the list
    row = (await session.execute(_NEWEST, {"source": offered.pair[0], "target": offered.pair[1]})).first()
    return row is not None and row.refused is not None and Quote(row.rate, row.as_of) == offered.quote


async def _store(session: Transaction, offered: OfferedRate, refused: Refusal | None, now: datetime) -> None:
    (source, target), quote = offered.pair, offered.quote
    of_pair = {"source": source, "target": target}
    version = int((await session.execute(_VERSION, of_pair)).scalar_one()) + 1
    row = {
        "source_currency": source, "target_currency": target, "version": version, "rate": quote.rate,
        "as_of": quote.as_of, "source": offered.source, "key_id": offered.key_id,
        "confirmed": offered.confirmed, "refused": refused, "set_at": now,
    }  # fmt: skip
    await session.execute(_INSERT, row)
    if refused is None:
        event = ExchangeRateSet(
            source_currency=source, target_currency=target, version=version, rate=quote.rate,
            as_of=quote.as_of, changed_at=now,
        )  # fmt: skip
        await announce(session, [event])


_INSERT: Final = insert(EXCHANGE_RATES)
_OF_PAIR: Final = and_(
    EXCHANGE_RATES.c.source_currency == bindparam("source"),
    EXCHANGE_RATES.c.target_currency == bindparam("target"),
)
_KNOWN: Final = (
    select(EXCHANGE_RATES)
    .where(_OF_PAIR, text(ACCEPTED))
    .order_by(EXCHANGE_RATES.c.version.desc())
    .limit(MAX_COMPARED)
)
_NEWEST: Final = select(EXCHANGE_RATES).where(_OF_PAIR).order_by(EXCHANGE_RATES.c.version.desc()).limit(1)
_VERSION: Final = select(func.coalesce(func.max(EXCHANGE_RATES.c.version), 0)).where(_OF_PAIR)


def _newest_of_each(*conditions: Any) -> Any:
    """The newest row of each pair that fulfils the conditions."""
    newest = (
        select(func.max(EXCHANGE_RATES.c.number).label("number"))
        .where(*conditions)
        .group_by(EXCHANGE_RATES.c.source_currency, EXCHANGE_RATES.c.target_currency)
        .subquery()
    )
    return (
        select(EXCHANGE_RATES)
        .join(newest, newest.c.number == EXCHANGE_RATES.c.number)
        .order_by(EXCHANGE_RATES.c.source_currency, EXCHANGE_RATES.c.target_currency)
    )


_NEWEST_ACCEPTED: Final = _newest_of_each(text(ACCEPTED))
_NEWEST_OF_ALL: Final = _newest_of_each()
_NEWEST_OF: Final = _newest_of_each(text(ACCEPTED), one_of(EXCHANGE_RATES.c.source_currency, "sources"))


async def list_rates(session: Transaction) -> Sequence[tuple[Row[Any] | None, Row[Any] | None]]:
    """The newest rate of each pair, with the newest one after it that was refused."""
    accepted = {
        (row.source_currency, row.target_currency): row for row in await session.execute(_NEWEST_ACCEPTED)
    }
    every = {(row.source_currency, row.target_currency): row for row in await session.execute(_NEWEST_OF_ALL)}
    return [(accepted.get(pair), None if row.refused is None else row) for pair, row in sorted(every.items())]


async def read_quotes(session: Transaction, pairs: Collection[Pair]) -> dict[Pair, Quote]:
    """The newest rates from which those of these pairs follow."""
    sources = {source for pair in pairs for source, _ in pairs_for(*pair)}
    rows = await session.execute(_NEWEST_OF, {"sources": sorted(sources)})
    return {(row.source_currency, row.target_currency): Quote(row.rate, row.as_of) for row in rows}


async def find_rates(session: Transaction, pairs: Collection[Pair], at: datetime) -> dict[Pair, Quote]:
    """The rates of these pairs at a moment, as far as there are fresh ones."""
    if not pairs:
        return {}
    known = await read_quotes(session, pairs)
    found = {pair: find_quote(*pair, known, at) for pair in pairs}
    return {pair: quote for pair, quote in found.items() if quote is not None}
