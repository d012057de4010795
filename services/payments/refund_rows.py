"""Refunds as stored, whom the payment that they return belongs to, and how much of it is reserved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Row, bindparam, func, select, text, update

from backbone.database.transaction import Transaction
from backbone.idempotency import ScopedKey
from backbone.money import Money
from services.payments.domain import RefundRank
from services.payments.tables import DRIVES, PAYMENTS, REFUNDS, RESERVED

RefundState = Literal["pending", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class Reserved:
    """A refund as stored before it is sent."""

    id: str
    payment_id: str
    intent: str
    amount: Money
    parameters: Mapping[str, Any]
    n: int
    tries: int
    key: ScopedKey
    made_at: datetime

    @property
    def stripe_key(self) -> str:
        """Its idempotency key at Stripe."""
        return self.id if self.n == 1 else f"{self.id}.{self.n}"


def reserved_of(row: Row[Any]) -> Reserved:
    """The refund of a row."""
    return Reserved(
        row.id, row.payment_id, row.intent, Money(row.units, row.currency), json.loads(row.parameters), row.n,
        row.tries, ScopedKey(row.scope, row.key), row.made_at,
    )  # fmt: skip


def update_of(reserved: Reserved) -> Any:
    """An update of its row."""
    return update(REFUNDS).where(REFUNDS.c.id == reserved.id)


def state_of(rank: int) -> RefundState:
    """The status of a refund that Stripe has, by its fact."""
    if rank == RefundRank.FAILED:
        return "failed"
    return "succeeded" if rank == RefundRank.SUCCEEDED else "pending"


_WHO: Final = (
    select(
        PAYMENTS.c.drive_id,
        PAYMENTS.c.partner.label("maker"),
        DRIVES.c.partner.label("owner"),
        DRIVES.c.test,
    )
    .join_from(PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True)
    .order_by(PAYMENTS.c.capture_index)
    .limit(1)
)
WHOSE: Final = _WHO.where(PAYMENTS.c.pledge_id == bindparam("pledge"))
WHOSE_PAYMENT: Final = _WHO.where(PAYMENTS.c.id == bindparam("payment"))
"""Who made a pledge and who owns its drive; a drive that is not known is not a test drive."""


async def reserved_units(session: Transaction, payment_id: str) -> int:
    """The sum that is reserved and not a fact yet: refunds requested that Stripe has not reported."""
    reserved = await session.execute(
        select(func.coalesce(func.sum(REFUNDS.c.units), 0)).where(
            REFUNDS.c.payment_id == payment_id, text(RESERVED)
        )
    )
    return int(reserved.scalar_one())


async def unsent_refunds(session: Transaction) -> int:
    """How many refunds have no known outcome yet; none of those that wait for a second key."""
    counted = select(func.count()).select_from(REFUNDS)
    unsent = counted.where(text(RESERVED), REFUNDS.c.state == "unsent")
    return int((await session.execute(unsent)).scalar_one())
