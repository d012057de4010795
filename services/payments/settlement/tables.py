"""The tables of balance transactions and payouts. Money is in minor units of ISO 4217."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.tables import Table, table_of

WAITING_MOVEMENTS: Final = "state = 'waiting'"
HELD_MOVEMENTS: Final = "state = 'held'"
UNRECONCILED: Final = "difference <> 0"
DUE_PAYOUTS: Final = "next_try_at IS NOT NULL"


def _where(condition: str) -> dict[str, Any]:
    """A partial index's condition, for both stores."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class BalanceTransaction(Table, table=True):
    """A balance transaction by Stripe's id (see `movements.Movement`), stored once and never updated, but for
    its `state`, its payment, and the payout that paid it out.
    """

    __tablename__ = "balance_transactions"
    __table_args__ = (
        Index("balance_transactions_waiting", "next_try_at", **_where(WAITING_MOVEMENTS)),
        Index("balance_transactions_held", "created_at", **_where(HELD_MOVEMENTS)),
        Index("balance_transactions_of_payment", "payment_id", **_where("payment_id IS NOT NULL")),
        Index("balance_transactions_of_payout", "payout_id", **_where("payout_id IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    type: str
    source: str | None
    intent: str | None
    amount: int = Field(sa_type=BigInteger)
    fee: int = Field(sa_type=BigInteger)
    currency: str
    exchange_rate: str | None
    created_at: datetime = Field(sa_type=Utc)
    available_on: datetime = Field(sa_type=Utc)
    state: str
    payment_id: str | None
    payout_id: str | None
    tries: int
    next_try_at: datetime = Field(sa_type=Utc)


class Payout(Table, table=True):
    """A payout; `difference` is its amount less the net of its balance transactions, None until compared.

    `resume_after` is the transaction after which the listing of them continues. `next_try_at` is None once
    nothing is left to read.
    """

    __tablename__ = "payouts"
    __table_args__ = (
        Index("payouts_due", "next_try_at", **_where(DUE_PAYOUTS)),
        Index("payouts_listed", "created_at", "id"),
        Index("payouts_different", "currency", **_where(UNRECONCILED)),
    )

    id: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
    currency: str
    status: str
    arrival_at: datetime = Field(sa_type=Utc)
    created_at: datetime = Field(sa_type=Utc)
    difference: int | None = Field(sa_type=BigInteger)
    payments: int | None
    resume_after: str | None
    tries: int
    next_try_at: datetime | None = Field(sa_type=Utc)


BALANCE_TRANSACTIONS: Final = table_of(BalanceTransaction)
PAYOUTS: Final = table_of(Payout)
