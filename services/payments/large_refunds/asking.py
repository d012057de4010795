"""Storing that a refund waits for a second key, in the transaction that reserves its amount."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backbone.clock import rfc3339
from backbone.database.transaction import Transaction
from services.payments.approvals import decisions
from services.payments.approvals.decisions import Decider
from services.payments.large_refunds.tables import LARGE_REFUNDS


async def ask_second_key(
    session: Transaction, refund_id: str, payment_id: str, by: Decider, reason: str | None, at: datetime
) -> dict[str, Any]:
    """Store that `by` asked for a refund which another key has to decide.

    Returns it in the shape of `ApprovalView`.
    """
    row = {"id": refund_id, "payment_id": payment_id, "reason": reason, "made_at": at}
    await decisions.store(session, LARGE_REFUNDS, row, by)
    return {
        "state": "needed",
        "requested_by": by.key_id,
        "requested_at": rfc3339(at),
        "decided_by": None,
        "decided_at": None,
        "reason": None,
    }
