"""The tables of offline gifts and of contributions in hours and goods."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.approvals.tables import Proposal
from services.payments.tables import table_of

APPROVED: Final = "status = 'approved'"
"""The condition of the index `contributions_summed`; statements repeat it literally."""


class OfflineGift(Proposal, table=True):
    """Money that a partner received past the processor.

    `payment_id` is set once it is approved: the row of `payments` that counts. `evidence` is a text or an
    address of the partner, shown to the drive's owner and admins.
    """

    __tablename__ = "offline_gifts"
    __table_args__ = (
        Index("offline_gifts_of_drive", "drive_id", "id"),
        Index("offline_gifts_of_partner", "partner", "id"),
    )

    units: int = Field(sa_type=BigInteger)
    currency: str
    method: str
    received_at: datetime = Field(sa_type=Utc)
    evidence: str
    creator_id: str | None
    payment_id: str | None = Field(unique=True)


class Contribution(Proposal, table=True):
    """Hours or goods; no money. `quantity` is in thousandths of `unit`."""

    __tablename__ = "contributions"
    __table_args__ = (
        Index("contributions_of_drive", "drive_id", "id"),
        Index("contributions_of_partner", "partner", "id"),
        Index(
            "contributions_summed",
            "drive_id",
            "kind",
            "unit",
            sqlite_where=text(APPROVED),
            postgresql_where=text(APPROVED),
        ),
    )

    kind: str
    quantity: int = Field(sa_type=BigInteger)
    unit: str
    label: str
    evidence: str
    creator_id: str | None


OFFLINE_GIFTS: Final = table_of(OfflineGift)
CONTRIBUTIONS: Final = table_of(Contribution)
