"""The worker that follows the tries of cards, and stores what is decided about them.

Its memory is that of the last hour; a new leader reads it again. Decisions are stored in one transaction.
One made a second time changes nothing: a refusal is only extended, and an expired checkout stays expired.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.wakeups import wait_for
from services.payments.screening.domain import MEMORY_S, Decisions, RefusedReason, Screening, Try
from services.payments.screening.tables import BREAKERS, REFUSED, TRIES
from services.payments.statements import insert_new, lock_payments
from services.payments.tables import PAYMENTS

EVERY_S: Final = 0.5
BATCH: Final = 2_000

log = structlog.get_logger()

_OPEN: Final = Gauge("ataa_card_testing_breakers_open", "Breakers that are open, of drives and of all.")
_REFUSALS: Final = Counter(
    "ataa_card_testing_refused_total", "Clients refused for a quarter of an hour, by reason.", ["reason"]
)
_EXHAUSTED: Final = Counter(
    "ataa_checkouts_exhausted_total", "Checkouts to be expired after too many declined cards."
)
for _reason in RefusedReason:
    _REFUSALS.labels(_reason)


class ScreeningWorker:
    """Reads the tries of cards as they are stored, decides, and stores the decisions.

    Without `enforce` they are only reported, and breakers that were open are closed.
    """

    def __init__(self, database: Database, clock: Clock, *, enforce: bool = True) -> None:
        self._enforce = enforce
        self._database = database
        self._clock = clock
        self._screening = Screening()
        self._read_to = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the tries until `stop`."""
        try:
            await self.load()
            while not stop.is_set():
                await self.step()
                await wait_for(stop, EVERY_S)
        finally:
            _OPEN.set(0)  # the next leader sets it

    async def load(self) -> None:
        """Read the open breakers, and the tries of the last hour."""
        self._screening, self._read_to = Screening(), 0
        if not self._enforce:
            async with self._database.transaction() as session:
                await session.execute(delete(BREAKERS))
                await session.execute(delete(REFUSED))
        now = self._clock.now()
        since = now - timedelta(seconds=MEMORY_S)
        async with self._database.reading() as session:
            rows = (await session.execute(select(BREAKERS))).all()
            before = (await session.execute(_BEFORE, {"since": since})).scalar()
            last = (await session.execute(_LAST)).scalar() or 0
        self._screening.restore([(row.scope, row.opened_at.timestamp()) for row in rows], now.timestamp())
        self._read_to = last if before is None else before - 1

    async def step(self) -> Decisions:
        """Read the tries stored since the last step, and store what follows from them."""
        while rows := await self._next():
            for row in rows:
                self._screening.note(_try_of(row))
            self._read_to = rows[-1].number
        decisions = self._screening.check(self._clock.now().timestamp())
        if decisions and self._enforce:
            async with self._database.transaction() as session:
                await _store(session, decisions, self._clock.now())
                crash_point("payments.screening.before_commit")
        _report(decisions)
        _OPEN.set(sum(each.is_open for each in self._screening.breakers.values()))
        return decisions

    async def _next(self) -> list[Row[Any]]:
        async with self._database.reading() as session:
            return list((await session.execute(_NEXT, {"after": self._read_to})).all())


def _try_of(row: Row[Any]) -> Try:
    return Try(
        row.at.timestamp(), row.payment_id, row.drive_id, row.client, row.card, row.declined, row.small
    )


async def _store(session: Transaction, decisions: Decisions, now: datetime) -> None:
    if decisions.exhausted:
        await lock_payments(session, decisions.exhausted)
        await session.execute(_EXHAUST, {"ids": sorted(decisions.exhausted)})
    if decisions.opened:
        rows = [{"scope": each, "opened_at": now} for each in decisions.opened]
        await session.execute(insert_new(session, BREAKERS), rows)
    if decisions.closed:
        await session.execute(_CLOSE, {"scopes": decisions.closed})
    if decisions.refused:
        refused = [
            {"client": each.client, "reason": each.reason, "until": datetime.fromtimestamp(each.until, UTC)}
            for each in decisions.refused
        ]
        await session.execute(insert(REFUSED), refused)


def _report(decisions: Decisions) -> None:
    for scope in decisions.opened:
        log.warning("card_testing.opened", scope=scope)
    for scope in decisions.closed:
        log.warning("card_testing.closed", scope=scope)
    for each in decisions.refused:
        _REFUSALS.labels(each.reason).inc()
        log.info("card_testing.client_refused", reason=each.reason)
    _EXHAUSTED.inc(len(decisions.exhausted))


_BEFORE: Final = select(func.min(TRIES.c.number)).where(TRIES.c.at > bindparam("since"))
_LAST: Final = select(func.max(TRIES.c.number))
_NEXT: Final = select(TRIES).where(TRIES.c.number > bindparam("after")).order_by(TRIES.c.number).limit(BATCH)
_EXHAUST: Final = update(PAYMENTS).where(one_of(PAYMENTS.c.id, "ids")).values(exhausted=True)
_CLOSE: Final = delete(BREAKERS).where(one_of(BREAKERS.c.scope, "scopes"))
