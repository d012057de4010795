"""What a drive's beneficiaries are owed, as payments, ledger and approved disbursements state it.

Sums the drive's payments, by the index `payments_captured`. That takes longer the more donations a drive
has, and is done once for each disbursement that is recorded or approved.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, case, func, or_, select, text

from backbone.database.transaction import Transaction
from services.payments.disbursements.tables import DISBURSEMENTS, PAID_OUT
from services.payments.rates.reporting import reported_net
from services.payments.recording.ledger import FEES
from services.payments.settlement.movements import ACCOUNT_FEES
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, WAITING_MOVEMENTS
from services.payments.tables import CAPTURED, DRIVES, PAYMENTS, POSTINGS, REFUNDS

_NET: Final = PAYMENTS.c.captured - PAYMENTS.c.refunded - PAYMENTS.c.disputed
_RAISED: Final = select(func.coalesce(func.sum(_NET), 0)).where(
    PAYMENTS.c.drive_id == bindparam("drive"),
    PAYMENTS.c.paid_currency == bindparam("currency"),
    PAYMENTS.c.held.is_(False),
    text(CAPTURED),
)
_FEES: Final = select(
    func.coalesce(func.sum(case((POSTINGS.c.debit == FEES, POSTINGS.c.units), else_=-POSTINGS.c.units)), 0)
).where(
    POSTINGS.c.drive_id == bindparam("drive"),
    POSTINGS.c.currency == bindparam("currency"),
    or_(POSTINGS.c.debit == FEES, POSTINGS.c.credit == FEES),
)
RESERVED: Final = (
    select(func.coalesce(func.sum(REFUNDS.c.units), 0))
    .join_from(REFUNDS, PAYMENTS, PAYMENTS.c.id == REFUNDS.c.payment_id)
    .where(
        text("state = 'unsent'"),
        PAYMENTS.c.drive_id == bindparam("drive"),
        PAYMENTS.c.held.is_(False),
        REFUNDS.c.currency == bindparam("currency"),
    )
)
"""Refunds that were asked for and not reported yet."""
_UNPOSTED: Final = case(
    (
        BALANCE_TRANSACTIONS.c.type.in_(sorted(ACCOUNT_FEES)),
        BALANCE_TRANSACTIONS.c.fee - BALANCE_TRANSACTIONS.c.amount,
    ),
    else_=BALANCE_TRANSACTIONS.c.fee,
)
UNPOSTED_FEES: Final = (
    select(func.coalesce(func.sum(_UNPOSTED), 0))
    .join_from(BALANCE_TRANSACTIONS, PAYMENTS, PAYMENTS.c.intent == BALANCE_TRANSACTIONS.c.intent)
    .where(
        text(WAITING_MOVEMENTS),
        PAYMENTS.c.drive_id == bindparam("drive"),
        PAYMENTS.c.paid_currency == BALANCE_TRANSACTIONS.c.currency,
        BALANCE_TRANSACTIONS.c.currency == bindparam("currency"),
    )
)
"""Fees that were read before their payment was known, and are not posted yet."""
PAID: Final = (
    select(DISBURSEMENTS.c.beneficiary, func.sum(DISBURSEMENTS.c.units))
    .where(
        DISBURSEMENTS.c.drive_id == bindparam("drive"), text(PAID_OUT), DISBURSEMENTS.c.status != "reversed"
    )
    .group_by(DISBURSEMENTS.c.beneficiary)
)
_LOCK_DRIVE: Final = select(DRIVES.c.id).where(DRIVES.c.id == bindparam("drive")).with_for_update()


async def lock_drive(session: Transaction, drive_id: str) -> bool:
    """Make transactions that pay out money of this drive wait for each other; whether the drive is stored.

    No other transaction that holds this lock waits for a row of `disbursements`.
    """
    return (await session.execute(_LOCK_DRIVE, {"drive": drive_id})).first() is not None


async def net_of(session: Transaction, drive_id: str, currency: str) -> int:
    """What the drive raised and kept, offline gifts included: without held money, refunds, disputes, fees.

    Refunds that are reserved and not sent yet are subtracted too, and fees that are known and not posted yet.
    Unknown are fees whose balance transaction was not read yet, or is held because it is in another currency.
    Gifts in other currencies count with what they are worth at their frozen rates.
    """
    of_drive: dict[str, Any] = {"drive": drive_id, "currency": currency}
    raised, *less = [
        int((await session.execute(each, of_drive)).scalar_one())
        for each in (_RAISED, _FEES, RESERVED, UNPOSTED_FEES)
    ]
    return raised - sum(less) + await reported_net(session, drive_id, currency)


async def paid_of(session: Transaction, drive_id: str) -> dict[str, int]:
    """What was paid to each beneficiary, by name, and did not come back."""
    rows = await session.execute(PAID, {"drive": drive_id})
    return {name: int(units) for name, units in rows}
