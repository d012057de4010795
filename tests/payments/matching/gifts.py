"""Gifts to drives with matching pools: facts recorded as webhooks would, and sums of everything matched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from backbone import ids
from backbone.contracts import Event, MatchingPoolChanged, decode
from services.payments.domain import CaptureRank, DisputeRank, FactKind, Observation, RefundRank
from services.payments.matching.tables import ALLOCATIONS, POOLS
from services.payments.recording.ledger import MATCHING_RECEIVABLE
from services.payments.recording.record import record
from services.payments.tables import MESSAGING_TABLES, POSTINGS
from tests.payments.books import Books

Pools = dict[str, int]


async def add_pool(books: Books, drive_id: str, cap: int, ratio: int = 10_000, **other: Any) -> str:
    """Store a pool, open since an hour ago; returns its id."""
    now = books.clock.now()
    row: dict[str, Any] = {
        "id": ids.new("mch"), "drive_id": drive_id, "version": 1, "sponsor": "Acme", "currency": "USD",
        "cap": cap, "used": 0, "ratio": ratio, "per_gift_cap": None, "creator_id": None,
        "starts_at": now - timedelta(hours=1), "ends_at": None, "ended_at": None, "made_by": "key_a",
        "ended_by": None, "made_at": now,
    }  # fmt: skip
    async with books.database.transaction() as session:
        await session.execute(insert(POOLS), [row | other])
    return str(row["id"])


def captured(number: int, units: int, drive_id: str, at: datetime, **other: Any) -> Observation:
    """The capture `pi_<number>` of a gift to a drive, by metadata alone."""
    return Observation(
        f"pi_{number}", FactKind.CAPTURE, f"pi_{number}", units, "USD", CaptureRank.BY_INTENT, at,
        drive_id=drive_id, **other,
    )  # fmt: skip


def refunded(name: str, number: int, units: int, rank: RefundRank, at: datetime) -> Observation:
    """The refund `re_<name>` of the gift `pi_<number>`."""
    return Observation(f"re_{name}", FactKind.REFUND, f"pi_{number}", units, "USD", rank, at)


def disputed(number: int, units: int, rank: DisputeRank, at: datetime, told_at: datetime) -> Observation:
    """The dispute of the gift `pi_<number>`."""
    return Observation(
        f"dp_{number}", FactKind.DISPUTE, f"pi_{number}", units, "USD", rank, at, told_at=told_at
    )


async def observe(books: Books, *observations: Observation) -> None:
    """Record observations in one transaction."""
    async with books.database.transaction() as session:
        await record(session, observations, books.clock.now())


async def used(books: Books) -> Pools:
    """What each pool has given, as stored."""
    async with books.database.reading() as session:
        rows = (await session.execute(select(POOLS))).all()
    assert all(0 <= row.used <= row.cap for row in rows)
    return {row.id: row.used for row in rows}


async def allocated(books: Books) -> Pools:
    """The sum of each pool's allocations."""
    sums: defaultdict[str, int] = defaultdict(int)
    async with books.database.reading() as session:
        for row in await session.execute(select(ALLOCATIONS)):
            sums[row.pool_id] += row.units
    return dict(sums)


async def allocations(books: Books) -> dict[tuple[str, str], int]:
    """What each pool gives to each payment, by (pool, payment)."""
    async with books.database.reading() as session:
        rows = (await session.execute(select(ALLOCATIONS))).all()
    return {(row.pool_id, row.payment_id): row.units for row in rows}


async def receivable(books: Books) -> Pools:
    """The ledger's balance of each pool: every cause begins with the pool's id."""
    sums: defaultdict[str, int] = defaultdict(int)
    async with books.database.reading() as session:
        for row in await session.execute(select(POSTINGS)):
            if MATCHING_RECEIVABLE in (row.debit, row.credit):
                sums[row.cause.partition("/")[0]] += (
                    row.units if row.debit == MATCHING_RECEIVABLE else -row.units
                )
    return dict(sums)


async def announced(books: Books) -> Sequence[Event]:
    """Every event in the outbox, in order."""
    outbox = MESSAGING_TABLES.outbox
    async with books.database.reading() as session:
        rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
    return [event for row in rows if (event := decode(row.name, row.value)) is not None]


async def announced_used(books: Books) -> Pools:
    """What each pool has given, by its newest announcement."""
    newest: dict[str, MatchingPoolChanged] = {}
    for event in await announced(books):
        if isinstance(event, MatchingPoolChanged):
            known = newest.get(event.pool_id)
            assert known is None or known.version < event.version
            newest[event.pool_id] = event
    return {pool: event.used.minor_units for pool, event in newest.items()}


async def agreed(books: Books) -> Pools:
    """What each pool has given, once tables, allocations, ledger and announcements are found to agree."""
    found = {pool: units for pool, units in (await used(books)).items() if units}
    for other in (await allocated(books), await receivable(books), await announced_used(books)):
        assert {pool: units for pool, units in other.items() if units} == found
    return found
