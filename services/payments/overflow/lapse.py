"""The end of checkouts through Payment Links, which end by our clock."""

from __future__ import annotations

from datetime import datetime

from backbone.contracts.payments import PaymentStatus
from backbone.database.transaction import Transaction
from services.payments.recording.restate import restate
from services.payments.recording.rows import read_facts, read_payments


async def lapse_unpaid(session: Transaction, payment_id: str, now: datetime) -> None:
    """State a payment as ended unpaid; one that was paid meanwhile stays as it is."""
    rows = [
        row
        for row in (await read_payments(session, ids=[payment_id])).values()
        if row.status == PaymentStatus.AWAITED and row.checkout == "open" and row.session_id is None
    ]
    for row in rows:
        row.ended = True
    facts = await read_facts(session, intents=[row.intent for row in rows if row.intent])
    await restate(session, rows, facts, now)
