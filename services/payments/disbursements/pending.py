"""What is known to leave a drive and is in none of its sums yet: it is not there to be paid out."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, bindparam, case, func, or_, select, text

from backbone.database.transaction import SyncTransaction
from backbone.exchange_rates import converted, converted_up
from services.payments.recording.ledger import FEES
from services.payments.settlement.movements import ACCOUNT_FEES
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, HELD_MOVEMENTS, WAITING_MOVEMENTS
from services.payments.tables import PAYMENTS, POSTINGS, REFUNDS, RESERVED


def read_pending(transaction: SyncTransaction, drive_id: str, currency: str) -> int:
    """Refunds not approved or sent yet, fees not posted yet, and those in other currencies at their rates.

    In minor units of the drive's `currency`. Where other transactions commit meanwhile, read this before the
    sums from which it is subtracted: what is posted in between is then subtracted twice, never missed.
    """
    of_drive: dict[str, Any] = {"drive": drive_id, "currency": currency}
    known = sum(int(transaction.execute(each, of_drive).scalar_one()) for each in _IN_ITS_CURRENCY)
    for row in transaction.execute(_RATED_REFUNDS, of_drive):
        # One more minor unit: the refund may round the net down by one.
        known += converted(int(row.units), row.currency, currency, row.rate) + 1
    for row in transaction.execute(_RATED_FEES, of_drive):
        known += converted_up(int(row.units), row.paid_currency, currency, row.rate)
    return known


_RESERVED: Final = (
    text(RESERVED),
    PAYMENTS.c.drive_id == bindparam("drive"),
    PAYMENTS.c.held.is_(False),
)
_REFUNDS: Final = (
    select(func.coalesce(func.sum(REFUNDS.c.units), 0))
    .join_from(REFUNDS, PAYMENTS, PAYMENTS.c.id == REFUNDS.c.payment_id)
    .where(*_RESERVED, REFUNDS.c.currency == bindparam("currency"))
)
_RATED_REFUNDS: Final = (
    select(REFUNDS.c.units, REFUNDS.c.currency, PAYMENTS.c.rate)
    .join_from(REFUNDS, PAYMENTS, PAYMENTS.c.id == REFUNDS.c.payment_id)
    .where(*_RESERVED, PAYMENTS.c.reporting_currency == bindparam("currency"))
)
_FEE: Final = case(
    (
        BALANCE_TRANSACTIONS.c.type.in_(sorted(ACCOUNT_FEES)),
        BALANCE_TRANSACTIONS.c.fee - BALANCE_TRANSACTIONS.c.amount,
    ),
    else_=BALANCE_TRANSACTIONS.c.fee,
)


def _fees(state: str) -> Select[Any]:
    return (
        select(func.coalesce(func.sum(_FEE), 0))
        .join_from(BALANCE_TRANSACTIONS, PAYMENTS, PAYMENTS.c.intent == BALANCE_TRANSACTIONS.c.intent)
        .where(
            text(state),
            PAYMENTS.c.drive_id == bindparam("drive"),
            BALANCE_TRANSACTIONS.c.currency == bindparam("currency"),
        )
    )


_IN_ITS_CURRENCY: Final = (_REFUNDS, _fees(WAITING_MOVEMENTS), _fees(HELD_MOVEMENTS))
"""Fees wait for their payment, or are held because the gift is in another currency than its settlement."""
_RATED_FEES: Final = (
    select(
        func.sum(case((POSTINGS.c.debit == FEES, POSTINGS.c.units), else_=-POSTINGS.c.units)).label("units"),
        PAYMENTS.c.paid_currency,
        PAYMENTS.c.rate,
    )
    .join_from(POSTINGS, PAYMENTS, PAYMENTS.c.id == POSTINGS.c.payment_id)
    .where(
        POSTINGS.c.drive_id == bindparam("drive"),
        or_(POSTINGS.c.debit == FEES, POSTINGS.c.credit == FEES),
        POSTINGS.c.currency == PAYMENTS.c.paid_currency,
        PAYMENTS.c.reporting_currency == bindparam("currency"),
    )
    .group_by(PAYMENTS.c.paid_currency, PAYMENTS.c.rate)
)
"""Fees in the currencies of the gifts; they are posted, but to sums of those currencies."""
