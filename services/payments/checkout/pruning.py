"""Pruning of finished checkout attempts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select

from backbone.database.database import Database
from services.payments.tables import ATTEMPTS, PAYMENTS

KEPT: Final = timedelta(days=30)
"""Retention of finished attempts, for the investigation of failed checkouts."""

SHORTEST: Final = timedelta(days=2)
"""Minimum retention: Stripe keeps a key for 24 hours (docs.stripe.com/api/idempotent_requests)."""

AT_ONCE: Final = 5_000


async def prune_attempts(database: Database, now: datetime, kept: timedelta = KEPT) -> int:
    """Delete up to `AT_ONCE` attempts that ended more than `kept` ago; returns how many.

    Never deletes an attempt whose outcome is unknown, one that was quarantined, one younger than
    `SHORTEST`, or one of a payment whose checkout is still to be opened, since its next attempt omits the
    parameters refused before. Keys are not reused: the payment's row counts its attempts.
    """
    still_tried = (
        select(PAYMENTS.c.id)
        .where(PAYMENTS.c.id == ATTEMPTS.c.payment_id, PAYMENTS.c.checkout.in_(("waiting", "opening")))
        .exists()
    )
    old = (
        select(ATTEMPTS.c.key)
        .where(ATTEMPTS.c.done_at.is_not(None), ATTEMPTS.c.done_at < now - max(kept, SHORTEST))
        .where(ATTEMPTS.c.state.in_(("opened", "failed")), ~still_tried)
        .order_by(ATTEMPTS.c.done_at)
        .limit(AT_ONCE)
    )
    async with database.lossy_transaction() as session:
        gone = await session.execute(
            delete(ATTEMPTS).where(ATTEMPTS.c.key.in_(old)).returning(ATTEMPTS.c.key)
        )
        return len(gone.all())
