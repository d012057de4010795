"""Early fraud warnings, which mark the payment of their intent, whichever of the two is reported first.

A warning of an intent without a payment is stored as a lookup of that intent (`reconciliation/lookups.py`):
Stripe is asked for a capture that was lost, and one of a foreign intent is dropped. The record of the capture
marks the payment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import bindparam, delete, func, select, update

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.recording.lookup_requests import UNPLACED_AFTER
from services.payments.recording.rows import PaymentRow
from services.payments.statements import insert_new, lock_intents, lock_payments
from services.payments.tables import LOOKUPS, PAYMENTS

WARNED: Final = "warned"
"""The kind of such a lookup."""

log = structlog.get_logger()

_WARNINGS: Final = Counter("ataa_early_fraud_warnings_total", "Payments that a card issuer warned of.")

Warned = tuple[str, str]
"""The id of a warned payment, and its drive."""


async def record_warnings(session: Transaction, intents: Collection[str], at: datetime) -> list[Warned]:
    """Mark the payments of these intents as warned of, and keep the warnings of those without a payment.

    A further warning keeps the time of the first one. It needs a transaction of its own: it locks payments,
    and one that has locked others or a pool could deadlock.
    """
    if not intents:
        return []
    await lock_intents(session, intents)  # no capture of them is recorded meanwhile
    found = {row.intent: row for row in await session.execute(_FOUND, {"intents": sorted(intents)})}
    if unplaced := sorted(set(intents) - found.keys()):
        lookup = {"kind": WARNED, "tries": 0, "ask_at": at + UNPLACED_AFTER}
        await session.execute(insert_new(session, LOOKUPS), [{"intent": each} | lookup for each in unplaced])
    if found:
        ids = [row.id for row in found.values()]
        await lock_payments(session, ids)
        await session.execute(_MARK, {"ids": ids, "at_now": at})
    return [(row.id, row.drive_id) for row in found.values()]


async def mark_captured(session: Transaction, rows: Iterable[PaymentRow], at: datetime) -> None:
    """Mark those of these newly captured payments whose intents were warned of before, and report them.

    Their transaction has locked the intents and the payments.
    """
    captured = {row.intent: row for row in rows if row.intent is not None}
    if not captured:
        return
    warned = [row.intent for row in await session.execute(_KEPT, {"intents": sorted(captured)})]
    if not warned:
        return
    await session.execute(_MARK, {"ids": [captured[each].id for each in warned], "at_now": at})
    await session.execute(_FORGET, {"intents": warned})
    report_warnings((captured[each].id, captured[each].drive_id) for each in warned)


_FOUND: Final = select(PAYMENTS.c.id, PAYMENTS.c.drive_id, PAYMENTS.c.intent).where(
    one_of(PAYMENTS.c.intent, "intents")
)
_MARK: Final = (
    update(PAYMENTS)
    .where(one_of(PAYMENTS.c.id, "ids"))
    .values(
        warned_at=func.coalesce(PAYMENTS.c.warned_at, bindparam("at_now", type_=PAYMENTS.c.warned_at.type))
    )
)
_KEPT: Final = select(LOOKUPS.c.intent).where(one_of(LOOKUPS.c.intent, "intents"), LOOKUPS.c.kind == WARNED)
_FORGET: Final = delete(LOOKUPS).where(one_of(LOOKUPS.c.intent, "intents"), LOOKUPS.c.kind == WARNED)


def report_warnings(warned: Iterable[Warned]) -> None:
    """Log and count warned payments."""
    for payment, drive in warned:
        _WARNINGS.inc()
        log.warning("payment.early_fraud_warning", payment=payment, drive=drive)
