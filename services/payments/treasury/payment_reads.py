"""Reads of payments: one by its id, or a page of those of which money was captured, the newest first."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Row, Select, bindparam, select, text

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.domain import Observation
from services.payments.holding.tables import DECISIONS
from services.payments.large_refunds.queries import large_of_payments
from services.payments.recording.rows import read_facts
from services.payments.settlement.queries import fee_and_payout
from services.payments.tables import CAPTURED, DRIVES, HELD, PAYMENTS, POSTINGS, RETURNED, WARNED
from services.payments.treasury.payment_views import NOT_SETTLED, payment_json

MAX_DRIVES: Final = 100
"""The most drives of a partner whose payments are listed together."""

ListedStatus = Literal["captured", "partly_refunded", "refunded", "disputed"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which payments to list: those below ticket `after`, in one status, only held ones, of one pledge, only
    those that a card issuer warned of.
    """

    status: ListedStatus | None
    held: bool
    after: int | None
    limit: int
    pledge: str | None = None
    warned: bool = False


async def read_payment(session: Transaction, payment_id: str) -> dict[str, Any] | None:
    """The payment in the shape of `PaymentView`; None where there is none."""
    row = (await session.execute(_ONE, {"payment": payment_id})).first()
    return None if row is None else (await _shown(session, [row]))[0]


async def list_payments(
    session: Transaction, drives: Collection[str] | None, wanted: Wanted
) -> dict[str, Any]:
    """A page of the payments of these drives, of all payments where `drives` is None.

    Each drive's newest payments are read from an index of its own and merged.
    """
    pages = [
        (await session.execute(_page(drive, wanted), {"drive": drive} if drive else {})).all()
        for drive in (drives if drives is not None else [None])
    ]
    newest = heapq.merge(*pages, key=lambda row: -int(row.number))
    rows = [row for row, _ in zip(newest, range(wanted.limit + 1), strict=False)]
    shown = rows[: wanted.limit]
    return {
        "data": await _shown(session, shown),
        "next": str(shown[-1].number) if len(rows) > wanted.limit else None,
    }


async def drives_of(session: Transaction, partner: str, *, test: bool) -> list[str]:
    """The drives a partner owns, at most one more than `MAX_DRIVES`; of test drives only where `test`."""
    owned = select(DRIVES.c.id).where(DRIVES.c.partner == partner).order_by(DRIVES.c.id)
    found = await session.execute((owned.where(DRIVES.c.test) if test else owned).limit(MAX_DRIVES + 1))
    return [row.id for row in found]


_SHOWN: Final = select(PAYMENTS, DRIVES.c.currency.label("drive_currency")).join_from(
    PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True
)
_ONE: Final = _SHOWN.where(PAYMENTS.c.id == bindparam("payment"))


def _page(drive: str | None, wanted: Wanted) -> Select[Any]:
    """One drive's page, or that of all; its conditions are literally those of a partial index."""
    page = _SHOWN.limit(wanted.limit + 1)
    order: list[Any] = []
    if drive is not None:
        page = page.where(PAYMENTS.c.drive_id == bindparam("drive"))
        order.append(PAYMENTS.c.drive_id.desc())  # names the index: the order alone is that of the key, too
    if wanted.status is not None:
        page = page.where(PAYMENTS.c.status == wanted.status)
    if wanted.warned:
        page = page.where(text(WARNED))
        page = page.where(text(HELD)) if wanted.held else page
    elif wanted.held:
        page = page.where(text(HELD))
    elif wanted.status in (None, "captured"):
        page = page.where(text(CAPTURED))
    else:
        page = page.where(text(RETURNED))
        order.append(PAYMENTS.c.status.desc())
    if wanted.pledge is not None:
        page = page.where(PAYMENTS.c.pledge_id == wanted.pledge)
    if wanted.after is not None:
        page = page.where(PAYMENTS.c.number < wanted.after)
    return page.order_by(*order, PAYMENTS.c.number.desc())


async def _shown(session: Transaction, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """These payments with their facts, postings and decisions, in one statement a table."""
    ids = [row.id for row in rows]
    facts = await _facts(session, rows)
    postings = _by_payment((await session.execute(_POSTINGS, {"payments": ids})).all())
    decisions = _by_payment((await session.execute(_DECISIONS, {"payments": ids})).all())
    settled = await fee_and_payout(session, ids)
    large = await large_of_payments(session, ids)
    return [
        payment_json(
            row,
            facts[row.id],
            postings[row.id],
            decisions[row.id],
            settled.get(row.id, NOT_SETTLED),
            large[row.id],
        )
        for row in rows
    ]


async def _facts(session: Transaction, rows: Sequence[Row[Any]]) -> dict[str, list[Observation]]:
    """The facts of payments, by payment. They are indexed by intent; an ended session may have none."""
    intents = [row.intent for row in rows if row.intent]
    sessions = [row.session_id for row in rows if row.session_id]
    found: dict[str, list[Observation]] = defaultdict(list)
    for fact in (await read_facts(session, ids=sessions, intents=intents)).values():
        if fact.payment_id is not None:
            found[fact.payment_id].append(fact.observation)
    return found


def _by_payment(rows: Sequence[Row[Any]]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.payment_id].append(row)
    return found


_POSTINGS: Final = (
    select(POSTINGS).where(one_of(POSTINGS.c.payment_id, "payments")).order_by(POSTINGS.c.number)
)
_DECISIONS: Final = (
    select(DECISIONS).where(one_of(DECISIONS.c.payment_id, "payments")).order_by(DECISIONS.c.number)
)
