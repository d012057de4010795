"""The table of prepared Payment Links."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.tables import Table, _where, table_of

UNSETTLED: Final = "state IN ('preparing', 'closing', 'reopening')"
"""Links that the processor is to be asked about; the condition of a partial index."""


class PaymentLink(Table, table=True):
    """A Payment Link of a drive for one amount, stored before it is created at the processor.

    `key` is `{drive}.{currency}.{amount}`. The link's metadata contains it, and `{key}.{n}` is the
    idempotency key under which `parameters` are sent verbatim. `state`:
    preparing → active → closing → closed → reopening → active, or failed (the processor refused it).

    `secret` signs the references of this link (references.py). `used_until` is the latest end of a checkout
    that was given this link; it is not deactivated before.
    """

    __tablename__ = "payment_links"
    __table_args__ = (
        UniqueConstraint("drive_id", "currency", "amount", name="payment_links_of_drive"),
        Index("payment_links_unsettled", "next_try_at", **_where(UNSETTLED)),
    )

    key: str = Field(primary_key=True)
    drive_id: str
    currency: str
    amount: int = Field(sa_type=BigInteger)
    state: str
    parameters: str
    secret: str
    n: int
    tries: int
    link_id: str | None
    url: str | None
    reason: str | None
    used_until: datetime | None = Field(sa_type=Utc)
    next_try_at: datetime = Field(sa_type=Utc)
    sent_since: datetime = Field(sa_type=Utc)


LINKS: Final = table_of(PaymentLink)
