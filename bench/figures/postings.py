"""Postings that the ledger takes a second, on PostgreSQL, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg

from backbone.database.columns import microseconds
from backbone.database.database import Database
from bench import own_postgres, single_figure
from bench.results import Detail
from bench.steps import Advance, Steps
from services.payments.app import MIGRATIONS
from services.payments.recording import ledger
from services.payments.recording.ledger import CLEARING, RAISED, NewPosting
from services.payments.tables import MESSAGING_TABLES

AIM_PER_S: Final = 10_000.0
BATCH: Final = 500
"""Postings in a transaction: as many as a batch of webhooks makes."""
POSTINGS: Final = 100_000
TURNS: Final = 4
_DRIVE: Final = "drv_01frtz5n00000000000000000a"
_AT: Final = datetime(2022, 1, 7, tzinfo=UTC)
_COLUMNS: Final = ("debit", "credit", "units", "currency", "cause", "payment_id", "drive_id", "posted_at")

Posted = tuple[NewPosting, str | None, str | None]


def measure(folder: Path, _rows: int, steps: Steps) -> Mapping[str, Detail]:
    """`postings`: `ledger.post` in a transaction a batch; the floor copies the same rows with asyncpg."""
    with own_postgres.running(folder) as url, steps.step("postings", 2 * TURNS) as advance:
        return asyncio.run(_measure(url, advance))


async def _measure(url: str, advance: Advance) -> Mapping[str, Detail]:
    database = Database(url, MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    raw = await asyncpg.connect(url)
    try:

        async def post(batch: Sequence[Posted]) -> None:
            async with database.transaction() as session:
                await ledger.post(session, batch, _AT)

        async def copy(batch: Sequence[Posted]) -> None:
            async with raw.transaction():
                await raw.copy_records_to_table("postings", records=map(_row, batch), columns=_COLUMNS)

        # Alternately, so that both grow with the table.
        ours, floors = [], []
        for turn in range(TURNS):
            ours.append(await _rate(f"a{turn}", post))
            advance(1)
            floors.append(await _rate(f"b{turn}", copy))
            advance(1)
    finally:
        await raw.close()
        await database.close()
    details: dict[str, Detail] = {
        "batch": BATCH,
        "postings": POSTINGS,
        "slowest_quarter_per_s": min(ours),
        "floor_is": "COPY of the same rows by asyncpg, a transaction a batch, into the same table",
    }
    return single_figure.of(
        "Postings of the ledger on PostgreSQL",
        _mean(ours),
        "1/s",
        AIM_PER_S,
        details,
        _mean(floors),
        more=True,
    )


def _mean(rates: Sequence[float]) -> float:
    """The rate over equally many rows at each of these rates."""
    return len(rates) / sum(1 / rate for rate in rates)


async def _rate(name: str, write: Callable[[Sequence[Posted]], Awaitable[None]]) -> float:
    number = POSTINGS // TURNS
    postings = [_posting(f"{name}_{each}") for each in range(number)]
    batches = [postings[first : first + BATCH] for first in range(0, number, BATCH)]
    began = time.perf_counter()
    for batch in batches:
        await write(batch)
    return number / (time.perf_counter() - began)


def _posting(name: str) -> Posted:
    return NewPosting(CLEARING, RAISED, 2_500, "USD", f"pi_{name}#1"), f"pay_{name}", _DRIVE


def _row(posted: Posted) -> tuple[object, ...]:
    new, payment, drive = posted
    at = microseconds(_AT)
    return (new.debit, new.credit, new.units, new.currency, new.cause, payment, drive, at)
