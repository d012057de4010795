"""Reads of payouts, and of the fee and payout of payments."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, case, func, select, tuple_

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.money import Money
from services.payments.settlement.movements import CAPTURE_TYPES, MovementState
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, PAYOUTS


@dataclass(frozen=True, slots=True)
class FeeAndPayout:
    """What the processor charged for a payment so far, and the payout that paid its capture out."""

    fee: Money | None
    payout: str | None


async def fee_and_payout(session: Transaction, payment_ids: Collection[str]) -> dict[str, FeeAndPayout]:
    """Fee and payout by payment; payments without a posted balance transaction are left out.

    The fee is the sum of all its transactions: the charge's, disputes', less what was returned.
    """
    if not payment_ids:
        return {}
    rows = await session.execute(_OF_PAYMENTS, {"ids": sorted(payment_ids)})
    return {row.payment_id: FeeAndPayout(Money(int(row.fee), row.currency), row.payout) for row in rows}


_LINES: Final = BALANCE_TRANSACTIONS.c
_OF_PAYMENTS: Final = (
    select(
        _LINES.payment_id,
        _LINES.currency,
        func.sum(_LINES.fee).label("fee"),
        func.max(case((_LINES.type.in_(CAPTURE_TYPES), _LINES.payout_id))).label("payout"),
    )
    .where(
        one_of(_LINES.payment_id, "ids"),
        _LINES.payment_id.is_not(None),
        _LINES.state == MovementState.POSTED.value,
    )
    .group_by(_LINES.payment_id, _LINES.currency)
)


async def list_payouts(session: Transaction, after: str | None, limit: int) -> Sequence[Any]:
    """Payouts, newest first, after the payout `after`; none where that one is unknown."""
    if after is None:
        return (await session.execute(_PAYOUTS, {"most": limit})).all()
    return (await session.execute(_PAYOUTS_AFTER, {"most": limit, "after": after})).all()


_LAST: Final = select(PAYOUTS.c.created_at).where(PAYOUTS.c.id == bindparam("after")).scalar_subquery()
_PAYOUTS: Final = (
    select(PAYOUTS).order_by(PAYOUTS.c.created_at.desc(), PAYOUTS.c.id.desc()).limit(bindparam("most"))
)
_PAYOUTS_AFTER: Final = _PAYOUTS.where(
    tuple_(PAYOUTS.c.created_at, PAYOUTS.c.id) < tuple_(_LAST, bindparam("after"))
)
