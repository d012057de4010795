"""Reads of refunds that a second key decides: one, those of payments, or a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, or_, select, text

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.approvals import decisions
from services.payments.approvals.states import Status
from services.payments.large_refunds.tables import LARGE_REFUNDS, TO_DECIDE
from services.payments.large_refunds.views import large_refund_json
from services.payments.tables import DRIVES, FACTS, PAYMENTS, REFUNDS

Json = dict[str, Any]

LARGE: Final = (
    select(
        LARGE_REFUNDS, REFUNDS.c.units, REFUNDS.c.currency, REFUNDS.c.state, PAYMENTS.c.pledge_id,
        PAYMENTS.c.drive_id, FACTS.c.rank,
    )
    .join_from(LARGE_REFUNDS, REFUNDS, REFUNDS.c.id == LARGE_REFUNDS.c.id)
    .join(PAYMENTS, PAYMENTS.c.id == LARGE_REFUNDS.c.payment_id)
    .join(DRIVES, DRIVES.c.id == PAYMENTS.c.drive_id, isouter=True)
    .join(FACTS, FACTS.c.id == REFUNDS.c.stripe_id, isouter=True)
)  # fmt: skip
_ONE: Final = LARGE.where(LARGE_REFUNDS.c.id == bindparam("refund"))
_OF_PAYMENTS: Final = LARGE.where(one_of(LARGE_REFUNDS.c.payment_id, "payments")).order_by(LARGE_REFUNDS.c.id)


@dataclass(frozen=True, slots=True)
class WantedRefunds:
    """Which are listed: of a drive, in a status, after an id; of test drives only where `test`.

    `partner` sees those of the drives that it owns and of the pledges that it made; None sees all.
    """

    drive_id: str | None
    status: Status | None
    partner: str | None
    test: bool
    after: str | None
    limit: int


async def find_large(session: Transaction, refund_id: str) -> Json:
    """One, which exists, in the shape of `LargeRefundView`."""
    row = (await session.execute(_ONE, {"refund": refund_id})).one()
    return (await _shown(session, [row]))[0]


async def large_of_payments(session: Transaction, payments: Collection[str]) -> dict[str, list[Json]]:
    """Those of these payments, by payment, the oldest first."""
    rows = (await session.execute(_OF_PAYMENTS, {"payments": payments})).all()
    found: dict[str, list[Json]] = defaultdict(list)
    for shown in await _shown(session, rows):
        found[shown["payment"]].append(shown)
    return found


async def page_of_large(session: Transaction, wanted: WantedRefunds) -> Json:
    """A page, the newest first."""
    rows = (await session.execute(_page(wanted))).all()
    shown = rows[: wanted.limit]
    return {
        "data": await _shown(session, shown),
        "next": shown[-1].id if len(rows) > wanted.limit else None,
    }


def _page(wanted: WantedRefunds) -> Select[Any]:
    page = LARGE.order_by(LARGE_REFUNDS.c.id.desc()).limit(wanted.limit + 1)
    if wanted.drive_id is not None:
        page = page.where(PAYMENTS.c.drive_id == wanted.drive_id)
    if wanted.partner is not None:
        page = page.where(or_(DRIVES.c.partner == wanted.partner, PAYMENTS.c.partner == wanted.partner))
    if wanted.test:
        page = page.where(DRIVES.c.test)
    if wanted.status is Status.PENDING:
        page = page.where(text(f"{LARGE_REFUNDS.name}.{TO_DECIDE}"))
    elif wanted.status is not None:
        page = page.where(LARGE_REFUNDS.c.status == wanted.status.value)
    if wanted.after is not None:
        page = page.where(LARGE_REFUNDS.c.id < wanted.after)
    return page


async def _shown(session: Transaction, rows: Sequence[Row[Any]]) -> list[Json]:
    histories = await decisions.histories(session, [row.id for row in rows]) if rows else {}
    return [large_refund_json(row, histories.get(row.id, [])) for row in rows]
