"""What is known to leave a drive and is in none of its sums yet: it is not there to be paid out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, case, func, or_, select, text

from backbone.database.transaction import SyncTransaction
from backbone.exchange_rates import converted, converted_up
from services.payments.funds import NO_SUMS, FundSums
from services.payments.recording.ledger import FEES, ZAKAT_ACCOUNTS
from services.payments.settlement.movements import ACCOUNT_FEES
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, HELD_MOVEMENTS, WAITING_MOVEMENTS
from services.payments.tables import PAYMENTS, POSTINGS, REFUNDS, RESERVED


def read_pending(transaction: SyncTransaction, drive_id: str, currency: str) -> FundSums:
    """Refunds not approved or sent yet, fees not posted yet, and those in other currencies at their rates.

    By the fund that they leave, in minor units of the drive's `currency`. Where other transactions commit
    meanwhile, read this before the sums from which it is subtracted: what is posted in between is then
    subtracted twice, never missed.
    """
    of_drive: dict[str, Any] = {"drive": drive_id, "currency": currency}
    known = NO_SUMS
    for statement in _IN_ITS_CURRENCY:
        for zakat, units in transaction.execute(statement, of_drive):
            known = known.plus(_of_fund(zakat, int(units)))
    for row in transaction.execute(_RATED_REFUNDS, of_drive):
        # One more minor unit: the refund may round the net down by one.
        units = converted(int(row.units), row.currency, currency, row.rate) + 1
        known = known.plus(_of_fund(row.zakat, units))
    fees: defaultdict[tuple[str, str], FundSums] = defaultdict(FundSums)  # by currency and rate
    for row in transaction.execute(_RATED_FEES, of_drive):
        rated = fees[row.paid_currency, row.rate]
        fees[row.paid_currency, row.rate] = rated.plus(_of_fund(row.zakat, int(row.units)))
    for (paid_currency, rate), units_of in fees.items():
        # Rounded up together, as if there were one fund: the sum does not depend on the parts.
        whole, zakat_part = (
            converted_up(units, paid_currency, currency, rate) for units in (units_of.whole, units_of.zakat)
        )
        known = known.plus(FundSums(whole - zakat_part, zakat_part))
    return known


def _of_fund(zakat: bool, units: int) -> FundSums:
    return FundSums(0, units) if zakat else FundSums(units)


def charged(account: str) -> ColumnElement[int]:
    """What a posting adds to an account of fees."""
    units = POSTINGS.c.units
    return case((POSTINGS.c.debit == account, units), (POSTINGS.c.credit == account, -units), else_=0)


_RESERVED: Final = (
    text(RESERVED),
    PAYMENTS.c.drive_id == bindparam("drive"),
    PAYMENTS.c.held.is_(False),
)
_REFUNDS: Final = (
    select(PAYMENTS.c.zakat, func.sum(REFUNDS.c.units))
    .join_from(REFUNDS, PAYMENTS, PAYMENTS.c.id == REFUNDS.c.payment_id)
    .where(*_RESERVED, REFUNDS.c.currency == bindparam("currency"))
    .group_by(PAYMENTS.c.zakat)
)
_RATED_REFUNDS: Final = (
    select(REFUNDS.c.units, REFUNDS.c.currency, PAYMENTS.c.rate, PAYMENTS.c.zakat)
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
        select(PAYMENTS.c.zakat, func.sum(_FEE))
        .join_from(BALANCE_TRANSACTIONS, PAYMENTS, PAYMENTS.c.intent == BALANCE_TRANSACTIONS.c.intent)
        .where(
            text(state),
            PAYMENTS.c.drive_id == bindparam("drive"),
            BALANCE_TRANSACTIONS.c.currency == bindparam("currency"),
        )
        .group_by(PAYMENTS.c.zakat)
    )


_IN_ITS_CURRENCY: Final = (_REFUNDS, _fees(WAITING_MOVEMENTS), _fees(HELD_MOVEMENTS))
"""Fees wait for their payment, or are held because the gift is in another currency than its settlement."""
_FEE_ACCOUNTS: Final = (FEES, ZAKAT_ACCOUNTS[FEES])
_RATED_FEES: Final = (
    select(
        func.sum(charged(_FEE_ACCOUNTS[0]) + charged(_FEE_ACCOUNTS[1])).label("units"),
        PAYMENTS.c.paid_currency,
        PAYMENTS.c.rate,
        PAYMENTS.c.zakat,
    )
    .join_from(POSTINGS, PAYMENTS, PAYMENTS.c.id == POSTINGS.c.payment_id)
    .where(
        POSTINGS.c.drive_id == bindparam("drive"),
        or_(POSTINGS.c.debit.in_(_FEE_ACCOUNTS), POSTINGS.c.credit.in_(_FEE_ACCOUNTS)),
        POSTINGS.c.currency == PAYMENTS.c.paid_currency,
        PAYMENTS.c.reporting_currency == bindparam("currency"),
    )
    .group_by(PAYMENTS.c.paid_currency, PAYMENTS.c.rate, PAYMENTS.c.zakat)
)
"""Fees in the currencies of the gifts; they are posted, but to sums of those currencies."""
