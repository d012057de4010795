"""Counts of page views: in memory, and added to the table every few seconds.

Of a view only the drive, the hour and the source are kept. Replicas add up in the table. A process that
crashes loses the views of `FLUSH_S` at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

import structlog
from sqlalchemy import Row, func, select
from sqlalchemy.dialects import postgresql, sqlite

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.periodic import delete_oldest
from backbone.wakeups import wait_for
from gateway.reach.sources import Source
from gateway.tables import VISITS

FLUSH_S: Final = 5.0
MAX_SOURCES: Final = 100
"""Sources of a drive in an hour; the views from others are counted together."""
MAX_COUNTS: Final = 50_000
"""Counts held in memory, over all drives; beyond them views are not counted."""
KEPT: Final = timedelta(days=400)
OTHER: Final = "(other)"
"""The source of the views that were counted together. No link can name it: a source has no brackets."""

Step = Literal["seen", "opened"]
STEPS: Final[Sequence[Step]] = get_args(Step)

BATCH: Final = 500
"""Counts that one transaction adds."""

log = structlog.get_logger()


class Place(NamedTuple):
    """A drive in an hour."""

    drive_id: str
    hour: datetime


Key = tuple[Place, str, Step]


def hour_of(at: datetime) -> datetime:
    """The hour in which `at` is."""
    return at.replace(minute=0, second=0, microsecond=0)


class Visits:
    """Counts views, and stores the counts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._pending: Counter[Key] = Counter()
        self._sources: defaultdict[Place, set[str]] = defaultdict(set)

    def count(self, drive_id: str, source: Source, step: Step) -> None:
        """Count one view."""
        place = Place(drive_id, hour_of(self._clock.now()))
        key = place, self._admitted(place, source.key), step
        if key in self._pending or len(self._pending) < MAX_COUNTS:
            self._pending[key] += 1

    def _admitted(self, place: Place, source: str) -> str:
        """The source, or `OTHER` where the drive has `MAX_SOURCES` others in this hour."""
        known = self._sources[place]
        if source in known or len(known) < MAX_SOURCES:
            known.add(source)
            return source
        return OTHER

    async def run(self, stop: asyncio.Event) -> None:
        """Store the counts every `FLUSH_S` until `stop`, and then what is left."""
        while not stop.is_set():
            await wait_for(stop, FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Add the counts to the table. What cannot be stored now is stored later."""
        self._forget_past_hours()
        counts, self._pending = self._pending, Counter()
        waiting = sorted(counts.items())
        try:
            while waiting:
                async with self._database.lossy_transaction() as session:
                    await _add(session, waiting[:BATCH])
                del waiting[:BATCH]
        except Exception as error:
            self._pending.update(dict(waiting))
            log.warning("reach.visits_not_stored", error=str(error), counts=len(waiting))

    def _forget_past_hours(self) -> None:
        hour = hour_of(self._clock.now())
        self._sources = defaultdict(set, {p: found for p, found in self._sources.items() if p.hour == hour})

    async def of(self, drive_id: str, since: datetime, until: datetime) -> Mapping[str, tuple[int, int]]:
        """The views stored of the hours from `since` until before `until`, seen and opened, by source."""
        statement = (
            select(VISITS.c.source, *(func.sum(VISITS.c[step]).label(step) for step in STEPS))
            .where(VISITS.c.drive_id == drive_id, VISITS.c.hour >= since, VISITS.c.hour < until)
            .group_by(VISITS.c.source)
        )
        async with self._database.reading() as session:
            rows: Sequence[Row[Any]] = (await session.execute(statement)).all()
        return {row.source: (int(row.seen), int(row.opened)) for row in rows}

    async def delete_old(self) -> int:
        """Delete a batch of counts older than `KEPT`; return how many."""
        return await delete_oldest(self._database, VISITS.c.hour, self._clock.now() - KEPT)


async def _add(session: Transaction, counts: Sequence[tuple[Key, int]]) -> None:
    """Add counts, sorted: in one order, or replicas may deadlock."""
    added: defaultdict[tuple[Place, str], Counter[Step]] = defaultdict(Counter)
    stored = await _stored_sources(session, {place for (place, _, _), _ in counts})
    for (place, source, step), count in counts:
        known = stored[place]
        # Of several replicas each may have admitted other sources.
        kept = source if source in known or len(known) < MAX_SOURCES else OTHER
        if kept != OTHER:
            known.add(kept)
        added[place, kept][step] += count
    rows = [
        {**place._asdict(), "source": source, **{step: steps[step] for step in STEPS}}
        for (place, source), steps in sorted(added.items(), key=lambda one: one[0])
    ]
    await session.execute(_UPSERTS[session.dialect.name], rows)


async def _stored_sources(session: Transaction, places: set[Place]) -> defaultdict[Place, set[str]]:
    statement = select(VISITS.c.drive_id, VISITS.c.hour, VISITS.c.source).where(
        VISITS.c.drive_id.in_({place.drive_id for place in places}),
        VISITS.c.hour.in_({place.hour for place in places}),
        VISITS.c.source != OTHER,
    )
    found: defaultdict[Place, set[str]] = defaultdict(set)
    for row in await session.execute(statement):
        found[Place(row.drive_id, row.hour)].add(row.source)
    return found


def _upsert(insert: Any) -> Any:
    statement = insert(VISITS)
    sums = {step: VISITS.c[step] + statement.excluded[step] for step in STEPS}
    return statement.on_conflict_do_update(index_elements=["drive_id", "hour", "source"], set_=sums)


_UPSERTS: Final = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
