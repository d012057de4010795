"""Early fraud warnings: a card issuer suspects that a payment was not made by the cardholder.

A warning moves no money and changes no payment. It is logged with its payment and counted, so that a person
can refund the payment before it is disputed. The stored webhook is its record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import select

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.tables import PAYMENTS

log = structlog.get_logger()

_WARNINGS: Final = Counter("ataa_early_fraud_warnings_total", "Payments that a card issuer warned of.")


async def warned_payments(session: Transaction, intents: Collection[str]) -> list[tuple[str, str]]:
    """The payments of payment intents, each with its drive."""
    if not intents:
        return []
    return [(row.id, row.drive_id) for row in await session.execute(_WARNED, {"intents": sorted(intents)})]


_WARNED: Final = select(PAYMENTS.c.id, PAYMENTS.c.drive_id).where(one_of(PAYMENTS.c.intent, "intents"))


def report_warnings(warned: Iterable[tuple[str, str]]) -> None:
    """Log and count the warned payments."""
    for payment, drive in warned:
        _WARNINGS.inc()
        log.warning("payment.early_fraud_warning", payment=payment, drive=drive)
