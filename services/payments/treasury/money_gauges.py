"""Gauges of money that waits: held payments, disputes, refunds, payouts, tickets, matching pools.

They are read from the database at an interval, in one process at a time, through partial indexes, so that an
event costs nothing. Ages are computed when Prometheus scrapes, so that a worker that hangs still ages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import bindparam, func, or_, select, text

from backbone.clock import Clock
from backbone.contracts.pledges import DriveState
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction
from backbone.wakeups import wait_for
from services.payments.domain import FactKind, HeldReason
from services.payments.large_refunds.tables import LARGE_REFUNDS, TO_DECIDE
from services.payments.matching.tables import POOLS
from services.payments.settlement.tables import DUE_PAYOUTS, PAYOUTS, UNRECONCILED
from services.payments.tables import (
    DRIVES,
    EVIDENCE_DUE,
    FACTS,
    HELD,
    OPEN_FACTS,
    OWED,
    PAYMENTS,
    REFUNDS,
    TICKETS,
)

EVERY_S: Final = 15.0

_HELD: Final = Gauge("ataa_held_payments", "Payments in suspense.", ["reason"])
_HELD_UNITS: Final = Gauge("ataa_held_minor_units", "What is left of the payments in suspense.", ["currency"])
_OLDEST_HELD: Final = Gauge("ataa_held_oldest_seconds", "How long a payment has been in suspense at most.")
_DISPUTES: Final = Gauge("ataa_disputes_open", "Open disputes about payments of ours.")
_DEADLINES: Final = Gauge("ataa_disputes_without_evidence", "Disputes whose evidence is due.")
_DEADLINE: Final = Gauge(
    "ataa_dispute_deadline_seconds", "Time until the next dispute's evidence is due; NaN without one."
)
_REFUNDS: Final = Gauge("ataa_refunds_owed", "Refunds that Stripe has not accepted or not completed.")
_OLDEST_REFUND: Final = Gauge("ataa_refunds_oldest_owed_seconds", "Age of the oldest such refund.")
_TO_DECIDE: Final = Gauge("ataa_refunds_to_decide", "Refunds that wait for a second key.")
_OLDEST_TO_DECIDE: Final = Gauge("ataa_refunds_oldest_to_decide_seconds", "Age of the oldest such refund.")
_PAYOUTS: Final = Gauge("ataa_payouts_not_compared", "Payouts not yet compared with their lines.")
_OLDEST_PAYOUT: Final = Gauge(
    "ataa_payouts_oldest_not_compared_seconds", "Time since the first such payout should have arrived."
)
_DIFFERENCE: Final = Gauge(
    "ataa_payouts_difference_minor_units", "By how much payouts differ from their lines.", ["currency"]
)
_OLDEST_TICKET: Final = Gauge("ataa_checkouts_oldest_waiting_seconds", "Age of the first ticket.")
_MATCHING: Final = Gauge(
    "ataa_matching_left_minor_units", "What open matching pools of live drives can still give.", ["currency"]
)
_EMPTIEST: Final = Gauge(
    "ataa_matching_least_left_ratio", "Share left of the open pool with the least; 1 without a pool."
)


class _Times:
    """The moments from which ages are computed at scrape time, by the metric that shows the age."""

    def __init__(self) -> None:
        self._moments: dict[Gauge, datetime | None] = {}
        self.now: Callable[[], datetime] | None = None

    def show(self, gauge: Gauge, *, until: bool = False) -> None:
        """Have a gauge show the time since its moment (`until`: the time left until it)."""

        def seconds() -> float:
            moment = self._moments.get(gauge)
            if moment is None or self.now is None:
                return float("nan") if until else 0.0
            passed = (self.now() - moment).total_seconds()
            return -passed if until else max(0.0, passed)

        gauge.set_function(seconds)

    def set(self, gauge: Gauge, moment: datetime | None) -> None:
        """Set a gauge's moment; None where nothing waits."""
        self._moments[gauge] = moment


_times: Final = _Times()
for _gauge in (_OLDEST_HELD, _OLDEST_REFUND, _OLDEST_TO_DECIDE, _OLDEST_PAYOUT, _OLDEST_TICKET):
    _times.show(_gauge)
_times.show(_DEADLINE, until=True)
_EMPTIEST.set(1)
for _reason in HeldReason:
    _HELD.labels(_reason)

_labelled: Final[dict[Gauge, set[str]]] = {gauge: set() for gauge in (_HELD_UNITS, _DIFFERENCE, _MATCHING)}


class MoneyGauges:
    """Reads the gauges every `EVERY_S`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`; then the next leader shows them."""
        try:
            while not stop.is_set():
                await self.read()
                await wait_for(stop, EVERY_S)
        finally:
            for show in _SHOWN:
                show(())

    async def read(self) -> None:
        """Read every gauge once, each statement in one snapshot with the others."""
        _times.now = self._clock.now
        values = {"now": self._clock.now()}

        def rows(transaction: SyncTransaction) -> list[list[Any]]:
            return [list(transaction.execute(statement, values)) for statement in _SHOWN.values()]

        found = dict(zip(_SHOWN, await self._database.read_whole(rows), strict=True))
        for show, each in found.items():
            show(each)


Rows = Iterable[Any]


def _show_held(rows: Rows) -> None:
    counts, units = dict.fromkeys(HeldReason, 0), dict[str, int]()
    since: list[datetime] = []
    for currency, reason, number, left, oldest in rows:
        counts[_known_reason(reason)] += int(number)
        units[currency] = units.get(currency, 0) + int(left)
        since += [oldest] if oldest else []
    for reason, number in counts.items():
        _HELD.labels(reason).set(number)
    _by_label(_HELD_UNITS, units)
    _times.set(_OLDEST_HELD, min(since, default=None))


def _known_reason(stored: str | None) -> HeldReason:
    """A stored reason. A process of an earlier version stores none, and one of a later version maybe a new
    one; both count as `other_currency`, as `payment_views` shows the first."""
    return HeldReason(stored) if stored in _REASONS else HeldReason.OTHER_CURRENCY


_REASONS: Final = frozenset(HeldReason)


def _show_disputes(rows: Rows) -> None:
    _DISPUTES.set(sum(int(number) for (number,) in rows))


def _show_deadlines(rows: Rows) -> None:
    _number_and_time(rows, _DEADLINES, _DEADLINE)


def _show_refunds(rows: Rows) -> None:
    _number_and_time(rows, _REFUNDS, _OLDEST_REFUND)


def _show_to_decide(rows: Rows) -> None:
    _number_and_time(rows, _TO_DECIDE, _OLDEST_TO_DECIDE)


def _show_payouts(rows: Rows) -> None:
    _number_and_time(rows, _PAYOUTS, _OLDEST_PAYOUT)


def _show_differences(rows: Rows) -> None:
    _by_label(_DIFFERENCE, {currency: int(units) for currency, units in rows})


def _show_first_ticket(rows: Rows) -> None:
    _times.set(_OLDEST_TICKET, min((made_at for (made_at,) in rows), default=None))


def _show_pools(rows: Rows) -> None:
    left: dict[str, int] = {}
    shares = [1.0]
    for currency, cap, used in rows:
        left[currency] = left.get(currency, 0) + cap - used
        shares.append((cap - used) / cap)
    _by_label(_MATCHING, left)
    _EMPTIEST.set(min(shares))


def _number_and_time(rows: Rows, number: Gauge, time: Gauge) -> None:
    for found, moment in rows or _NONE:
        number.set(int(found))
        _times.set(time, moment)


_NONE: Final = ((0, None),)


def _by_label(gauge: Gauge, values: Mapping[str, int]) -> None:
    """Set a gauge's series; those that it had before and have no value now are 0."""
    _labelled[gauge].update(values)
    for label in _labelled[gauge]:
        gauge.labels(label).set(values.get(label, 0))


_P: Final = PAYMENTS.c
_LEFT: Final = _P.captured - _P.refunded - _P.disputed

_SHOWN: Final[Mapping[Callable[[Rows], None], Any]] = {
    _show_held: (
        select(
            _P.paid_currency, _P.held_reason, func.count(), func.sum(_LEFT), func.min(_P.held_since)
        )
        .where(text(HELD))
        .group_by(_P.paid_currency, _P.held_reason)
    ),
    _show_disputes: (
        select(func.count())
        .select_from(FACTS)
        .where(text(f"({OPEN_FACTS})"), FACTS.c.kind == FactKind.DISPUTE, FACTS.c.payment_id.is_not(None))
    ),
    _show_deadlines: (
        select(func.count(), func.min(FACTS.c.due_at))
        .select_from(FACTS)
        .where(text(EVIDENCE_DUE), FACTS.c.payment_id.is_not(None))
    ),
    _show_refunds: select(func.count(), func.min(REFUNDS.c.made_at)).where(text(OWED)),
    _show_to_decide: select(func.count(), func.min(LARGE_REFUNDS.c.made_at)).where(text(TO_DECIDE)),
    _show_payouts: (
        select(func.count(), func.min(PAYOUTS.c.arrival_at))
        .select_from(PAYOUTS)
        .where(text(DUE_PAYOUTS), PAYOUTS.c.difference.is_(None))
    ),
    _show_differences: (
        select(PAYOUTS.c.currency, func.sum(func.abs(PAYOUTS.c.difference)))
        .where(text(UNRECONCILED))
        .group_by(PAYOUTS.c.currency)
    ),
    _show_first_ticket: select(_P.made_at).where(text(TICKETS)).order_by(_P.number).limit(1),
    _show_pools: select(POOLS.c.currency, POOLS.c.cap, POOLS.c.used).where(
        POOLS.c.drive_id.in_(select(DRIVES.c.id).where(DRIVES.c.state == DriveState.LIVE)),
        POOLS.c.ended_at.is_(None),
        POOLS.c.used < POOLS.c.cap,
        POOLS.c.starts_at <= bindparam("now", type_=POOLS.c.starts_at.type),
        or_(POOLS.c.ends_at.is_(None), POOLS.c.ends_at > bindparam("now", type_=POOLS.c.starts_at.type)),
    ),
}  # fmt: skip
"""What is read for what is shown. The conditions are those of partial indexes."""
