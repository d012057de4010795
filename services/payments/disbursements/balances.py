"""What a drive's beneficiaries are owed, as payments, ledger and approved disbursements state it.

Sums the drive's payments, by the index `payments_captured`. That takes longer the more donations a drive
has, and is done once for each disbursement that is recorded or approved.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, case, func, or_, select, text

from backbone.database.transaction import Transaction
from services.payments.disbursements.pending import read_pending
from services.payments.disbursements.tables import DISBURSEMENTS, PAID_OUT
from services.payments.rates.reporting import reported_net
from services.payments.recording.ledger import FEES
from services.payments.tables import CAPTURED, DRIVES, PAYMENTS, POSTINGS

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

    Gifts in other currencies count with what they are worth at their frozen rates. What is known to leave and
    not posted yet is subtracted too (`read_pending`). Unknown are fees whose balance transaction was not read
    yet, or is in a currency that is neither the gift's nor the drive's.
    """
    of_drive: dict[str, Any] = {"drive": drive_id, "currency": currency}
    pending = await session.run_sync(read_pending, drive_id, currency)
    fees, raised = [int((await session.execute(each, of_drive)).scalar_one()) for each in (_FEES, _RAISED)]
    return raised + await reported_net(session, drive_id, currency) - fees - pending


async def paid_of(session: Transaction, drive_id: str) -> dict[str, int]:
    """What was paid to each beneficiary, by name, and did not come back."""
    rows = await session.execute(PAID, {"drive": drive_id})
    return {name: int(units) for name, units in rows}
