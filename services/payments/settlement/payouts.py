"""Payouts compared with their balance transactions, line by line.

The lines of a payout are listed, stored like every balance transaction, and assigned to it. Their net must be
its amount: another sum is stored as its difference, logged, exported as a metric, and compared again later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import and_, bindparam, func, select, text, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.processor import PayoutState, Processor, ProcessorError, Refused, TooFast
from services.payments.settlement.record import record_movements
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, DUE_PAYOUTS, PAYOUTS
from services.payments.stripe.rate_limiter import RateLimiter

PAYOUTS_A_ROUND: Final = 20
PAGES: Final = 100
"""Pages of 100 lines that one payout's listing reads in a round; it resumes in the next one."""

FINAL: Final = frozenset(("paid", "failed", "canceled"))
"""Statuses that do not change, but for a paid payout that fails; its own transaction then reports that."""

LAST_RETRY: Final = timedelta(days=1)

log = structlog.get_logger()

_LINES: Final = BALANCE_TRANSACTIONS.c
_DUE: Final = (
    select(PAYOUTS)
    .where(text(DUE_PAYOUTS), PAYOUTS.c.next_try_at <= bindparam("now"))
    .order_by(PAYOUTS.c.next_try_at)
    .limit(PAYOUTS_A_ROUND)
)


class PayoutReader:
    """Reads the payouts that are due; one that is not complete is read again after `every_s`."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        rate_limiter: RateLimiter,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._database = database
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._every = timedelta(seconds=every_s)

    async def read_due(self) -> None:
        """One round. A payout that cannot be read is tried again later; raises `TooFast` after a 429."""
        async with self._database.reading() as session:
            due = (await session.execute(_DUE, {"now": self._clock.now()})).all()
        for row in due:
            try:
                await self._read(row)
            except TooFast:
                raise
            except ProcessorError as error:
                log.warning("settlement.payout_not_read", payout=row.id, reason=str(error))
                await self._save(row.id, tries=row.tries + 1, next_try_at=self._after(row.tries))

    async def _read(self, row: Any) -> None:
        await self._rate_limiter.acquire()
        payout = await self._processor.read_payout(row.id)
        self._rate_limiter.succeeded()
        if payout is None:
            raise Refused("the processor does not know this payout")
        is_final = payout.status in FINAL and payout.lines is not False
        again = None if is_final else self._clock.now() + self._every
        seen = {name: getattr(payout, name) for name in ("amount", "currency", "status", "arrival_at")}
        # A payout stays due until its lines are compared.
        await self._save(row.id, **seen, next_try_at=row.next_try_at if payout.lines else again)
        if payout.lines and await self._list_lines(row.id, row.resume_after):
            await self._compare(payout, row.tries, again)

    async def _list_lines(self, payout_id: str, after: str | None) -> bool:
        """Store and assign a payout's lines; returns whether all of them were read."""
        for _ in range(PAGES):
            await self._rate_limiter.acquire()
            try:
                page = await self._processor.list_movements(after, payout=payout_id)
            except Refused:
                await self._save(payout_id, resume_after=None)
                raise
            self._rate_limiter.succeeded()
            if page.unreadable:
                log.error("settlement.unreadable", payout=payout_id, transactions=list(page.unreadable))
            lines = [each.id for each in page.movements if each.source != payout_id]
            async with self._database.transaction() as session:
                await record_movements(session, page.movements, self._clock.now())
                await _assign(session, payout_id, lines)
                await session.execute(
                    update(PAYOUTS).where(PAYOUTS.c.id == payout_id).values(resume_after=page.after)
                )
                crash_point("payments.settlement.payout_before_commit")
            after = page.after
            if after is None:
                return True
        return False

    async def _compare(self, payout: PayoutState, tries: int, again: datetime | None) -> None:
        async with self._database.transaction() as session:
            net, payments = (await session.execute(_SUMS, {"of_id": payout.id})).one()
            difference = payout.amount - int(net)
            again = self._after(tries) if difference else again
            await session.execute(
                update(PAYOUTS)
                .where(PAYOUTS.c.id == payout.id)
                .values(difference=difference, payments=payments, tries=tries + 1, next_try_at=again)
            )
        if difference:
            log.error(
                "settlement.payout_differs", payout=payout.id, currency=payout.currency,
                minor_units=difference,
            )  # fmt: skip

    def _after(self, tries: int) -> datetime:
        return self._clock.now() + min(self._every * (1 << min(tries, 20)), LAST_RETRY)

    async def _save(self, payout_id: str, **values: Any) -> None:
        async with self._database.transaction() as session:
            await session.execute(update(PAYOUTS).where(PAYOUTS.c.id == payout_id).values(**values))


async def _assign(session: Transaction, payout_id: str, lines: Sequence[str]) -> None:
    if lines:
        await session.execute(_ASSIGN, {"ids": sorted(lines), "to_payout": payout_id})


_ASSIGN: Final = (
    update(BALANCE_TRANSACTIONS).where(one_of(_LINES.id, "ids")).values(payout_id=bindparam("to_payout"))
)
_SUMS: Final = select(
    func.coalesce(func.sum(_LINES.amount - _LINES.fee), 0), func.count(_LINES.payment_id.distinct())
).where(and_(_LINES.payout_id == bindparam("of_id"), _LINES.payout_id.is_not(None)))
