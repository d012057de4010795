"""The overflow lane: pledges that would wait long for a checkout get a prepared Payment Link instead.

A ticket leaves the queue where the estimate that its donor is told exceeds the limit, its checkout is hosted,
and there is an active link of its drive for its amount. The link's address with the pledge's reference is its
checkout from then on: no call is made. The front and the rates of the queue stay as they are, so no other
ticket's position or estimate grows.

Estimates never grow either (admission/estimates.py): a ticket is looked at once, and again only because links
change or tickets are committed out of order. Nothing is given out while checkouts are paused, nor for a drive
with which cards are being tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Row, bindparam, case, exists, or_, select, text, update

from backbone.clock import Clock
from backbone.contracts.payments import PaymentStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.wakeups import wait_for
from services.payments.admission.estimates import Estimates
from services.payments.admission.store import read_queue_and_newest
from services.payments.overflow.references import reference_of
from services.payments.overflow.tables import LINKS
from services.payments.processor import Processor
from services.payments.screening.domain import ALL_DRIVES
from services.payments.screening.tables import BREAKERS
from services.payments.statements import lock_payments
from services.payments.tables import PAYMENTS, TICKETS

EVERY_S: Final = 0.5
BATCH: Final = 200
LOOKED_AT_ANEW_S: Final = 5.0
"""After so long the whole queue is looked at again: for links prepared since, and tickets committed late."""

MARGIN: Final = 0.5
"""The queue is read where the estimate of its newest number exceeds this share of the limit. A ticket's
estimate follows from its own rate, which may be lower than the current one."""

_GIVEN: Final = Counter(
    "ataa_overflow_checkouts_total", "Pledges that were given a Payment Link instead of waiting."
)


class OverflowLane:
    """Gives links to tickets whose estimate exceeds `after_s`; their checkouts end after `lifetime_s`."""

    def __init__(
        self, database: Database, processor: Processor, clock: Clock, *, after_s: float, lifetime_s: float
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._after_s = after_s
        self._lifetime = timedelta(seconds=lifetime_s)
        self._looked_at = 0
        self._anew_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Give out links until `stop`, in one process at a time."""
        while not stop.is_set():
            if not await self.step():
                await wait_for(stop, EVERY_S)

    async def step(self) -> int:
        """Look at the next tickets of the queue; returns how many had an active link."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._anew_at:
            self._looked_at, self._anew_at = 0, loop.time() + LOOKED_AT_ANEW_S
        async with self._database.reading() as session:
            state, newest = await read_queue_and_newest(session)
            if state.pause is not None or not self._may_be_long(state.estimates, newest):
                return 0
            after = max(state.estimates.front, self._looked_at)
            rows = (await session.execute(_CANDIDATES, {"after": after, "at_most": BATCH})).all()
        long = [row for row in rows if self._is_long(state.estimates, row)]
        if long:
            await self._give(long)
        self._looked_at = rows[-1].number if len(rows) == BATCH else newest
        return len(rows)

    def _may_be_long(self, estimates: Estimates, newest: int) -> bool:
        return estimates.eta_seconds(newest, estimates.rate) > MARGIN * self._after_s

    def _is_long(self, estimates: Estimates, row: Row[Any]) -> bool:
        return estimates.eta_seconds(row.number, row.queue_rate) > self._after_s

    async def _give(self, rows: Sequence[Row[Any]]) -> None:
        """Give links to those of these tickets that still wait, in one transaction."""
        until = self._clock.now() + self._lifetime
        async with self._database.transaction() as session:
            usable = await _use_links(session, {row.key for row in rows}, until)
            payments = [row.id for row in rows if row.key in usable]
            await lock_payments(session, payments)
            waiting = {each for (each,) in await session.execute(_STILL, {"ids": payments})}
            given = [row for row in rows if row.id in waiting]
            if given:
                await session.execute(_OPEN, [self._checkout(row, until) for row in given])
            crash_point("payments.overflow.before_commit")
        _GIVEN.inc(len(given))

    def _checkout(self, row: Row[Any], until: datetime) -> dict[str, Any]:
        reference = reference_of(row.pledge_id, row.secret)
        address = self._processor.link_address(row.url, reference, row.locale)
        return {"at_id": row.id, "to_url": address, "to_end": until}


async def _use_links(session: Transaction, keys: set[str], until: datetime) -> set[str]:
    """Note that these links are used `until`; those that are active still. Their rows are locked in order."""
    used = set()
    for key in sorted(keys):
        if (await session.execute(_USE, {"at_key": key, "until": until})).rowcount:
            used.add(key)
    return used


_TESTED: Final = exists(
    select(BREAKERS.c.scope).where(BREAKERS.c.scope.in_((ALL_DRIVES, PAYMENTS.c.drive_id)))
)
"""Cards are being tested: a link cannot be expired after declined cards, as a checkout is (screening/)."""

_CANDIDATES: Final = (
    select(
        PAYMENTS.c.id, PAYMENTS.c.number, PAYMENTS.c.pledge_id, PAYMENTS.c.locale, PAYMENTS.c.queue_rate,
        LINKS.c.key, LINKS.c.url, LINKS.c.secret,
    )
    .join_from(
        PAYMENTS,
        LINKS,
        (LINKS.c.drive_id == PAYMENTS.c.drive_id)
        & (LINKS.c.currency == PAYMENTS.c.currency)
        & (LINKS.c.amount == PAYMENTS.c.amount),
    )
    .where(
        text(TICKETS), PAYMENTS.c.number > bindparam("after"), PAYMENTS.c.mode == "hosted",
        LINKS.c.state == "active", ~_TESTED,
    )
    .order_by(PAYMENTS.c.number)
    .limit(bindparam("at_most"))
)  # fmt: skip
_UNTIL: Final = bindparam("until", type_=LINKS.c.used_until.type)
_USE: Final = (
    update(LINKS)
    .where(LINKS.c.key == bindparam("at_key"), LINKS.c.state == "active")
    .values(
        used_until=case(
            (or_(LINKS.c.used_until.is_(None), LINKS.c.used_until < _UNTIL), _UNTIL),
            else_=LINKS.c.used_until,
        )
    )
)
_STILL: Final = select(PAYMENTS.c.id).where(
    one_of(PAYMENTS.c.id, "ids"),
    PAYMENTS.c.checkout == "waiting",
    PAYMENTS.c.status == PaymentStatus.AWAITED.value,
    ~PAYMENTS.c.cancelled,
)
_OPEN: Final = (
    update(PAYMENTS)
    .where(PAYMENTS.c.id == bindparam("at_id"), PAYMENTS.c.checkout == "waiting")
    .values(
        checkout="open",
        checkout_url=bindparam("to_url"),
        expires_at=bindparam("to_end", type_=PAYMENTS.c.expires_at.type),
    )
)
"""`session_id` stays empty: it is how a checkout through a link is known (checkout/expiry.py)."""
