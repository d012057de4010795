"""How far Stripe's events are applied: the bound of payments' watermarks, and its metric."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Gauge
from sqlalchemy import bindparam, select, text

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.stripe.events import DECLINED, READERS
from services.payments.tables import WEBHOOKS, WEBHOOKS_QUARANTINED, WEBHOOKS_WAITING

HOLDS_WATERMARK_BACK: Final = timedelta(minutes=10)
"""How long after its arrival a quarantined webhook holds the watermark back; see `oldest_waiting`."""

_OLDEST: Final = Gauge(
    "ataa_webhooks_oldest_waiting_seconds", "Age of the oldest stored webhook not yet applied."
)


_OLDEST_WAITING: Final = (
    select(WEBHOOKS.c.received_at).where(text(WEBHOOKS_WAITING)).order_by(WEBHOOKS.c.number).limit(1)
)
_OLDEST_QUARANTINED: Final = (
    select(WEBHOOKS.c.received_at)
    .where(text(WEBHOOKS_QUARANTINED), WEBHOOKS.c.received_at > bindparam("since"))
    .where(one_of(WEBHOOKS.c.type, "about_money"))
    .order_by(WEBHOOKS.c.received_at)
    .limit(1)
)


class _OldestAge:
    """Computes the age at scrape time, so a stalled applier still ages."""

    def __init__(self) -> None:
        self.received_at: datetime | None = None

    def seconds(self) -> float:
        """0 where no webhook waits."""
        return 0.0 if self.received_at is None else (datetime.now(UTC) - self.received_at).total_seconds()


_oldest_age: Final = _OldestAge()
_OLDEST.set_function(_oldest_age.seconds)


async def oldest_waiting(session: Transaction, now: datetime | None = None) -> datetime | None:
    """When the oldest webhook not yet applied was received: no watermark may be later.

    A quarantined webhook about money is missing in every figure. It therefore holds the watermark back too,
    and overlays show `catching_up`, but only for HOLDS_WATERMARK_BACK after its arrival: by then the alert
    AtaaWebhooksSetAside has fired, and one event that no version can read would otherwise hide every real
    delay on every drive.
    """
    oldest: datetime | None = (await session.execute(_OLDEST_WAITING)).scalar()
    _oldest_age.received_at = oldest
    quarantined = await _oldest_quarantined(session, (now or datetime.now(UTC)) - HOLDS_WATERMARK_BACK)
    return min((each for each in (oldest, quarantined) if each is not None), default=None)


async def _oldest_quarantined(session: Transaction, since: datetime) -> datetime | None:
    """When the oldest quarantined webhook about money was received, of those received after `since`."""
    values = {"since": since, "about_money": [each for each in READERS if each != DECLINED]}
    found: datetime | None = (await session.execute(_OLDEST_QUARANTINED, values)).scalar()
    return found
