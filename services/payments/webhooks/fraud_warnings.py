"""Early fraud warnings: a card issuer suspects that a payment was not made by the cardholder.

A warning moves no money, and the payment counts until a person refunds it. The payment is marked with the
time of the first warning, so that a person can find it (`GET /v1/payments?warned=true`) and refund it before
it is disputed. It is logged and counted too. The stored webhook is the record of the warning itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import bindparam, func, select, update

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.statements import lock_payments
from services.payments.tables import PAYMENTS

log = structlog.get_logger()

_WARNINGS: Final = Counter("ataa_early_fraud_warnings_total", "Payments that a card issuer warned of.")


async def mark_warned(session: Transaction, intents: Collection[str], at: datetime) -> list[tuple[str, str]]:
    """Mark the payments of payment intents as warned of; returns them, each with its drive.

    A further warning keeps the time of the first one.
    """
    if not intents:
        return []
    found = [(row.id, row.drive_id) for row in await session.execute(_FOUND, {"intents": sorted(intents)})]
    if found:
        ids = [payment for payment, _ in found]
        await lock_payments(session, ids)
        await session.execute(_MARK, {"ids": ids, "at_now": at})
    return found


_FOUND: Final = select(PAYMENTS.c.id, PAYMENTS.c.drive_id).where(one_of(PAYMENTS.c.intent, "intents"))
_MARK: Final = (
    update(PAYMENTS)
    .where(one_of(PAYMENTS.c.id, "ids"))
    .values(
        warned_at=func.coalesce(PAYMENTS.c.warned_at, bindparam("at_now", type_=PAYMENTS.c.warned_at.type))
    )
)


def report_warnings(warned: Iterable[tuple[str, str]]) -> None:
    """Log and count the warned payments."""
    for payment, drive in warned:
        _WARNINGS.inc()
        log.warning("payment.early_fraud_warning", payment=payment, drive=drive)
