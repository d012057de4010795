"""The table of disbursements."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.approvals.tables import Proposal
from services.payments.funds import Fund
from services.payments.tables import table_of

PAID_OUT: Final = "status IN ('approved', 'reversal_requested', 'reversed')"
"""Disbursements that were paid out, also those that came back since; the condition of the index
`disbursements_paid`, which statements repeat literally."""


class Disbursement(Proposal, table=True):
    """Money that was paid to a beneficiary; `evidence` is shown to the drive's owner and admins only.

    `fund` (`funds.Fund`) is what it is paid from. `reversed_at` is set once two keys reversed it.
    """

    __tablename__ = "disbursements"
    __table_args__ = (
        Index("disbursements_of_drive", "drive_id", "id"),
        Index("disbursements_of_partner", "partner", "id"),
        Index(
            "disbursements_paid",
            "drive_id",
            "id",
            sqlite_where=text(PAID_OUT),
            postgresql_where=text(PAID_OUT),
        ),
    )

    beneficiary: str
    units: int = Field(sa_type=BigInteger)
    currency: str
    paid_at: datetime = Field(sa_type=Utc)
    reference: str
    evidence: str
    reversed_at: datetime | None = Field(default=None, sa_type=Utc)
    fund: str = Field(default=Fund.GENERAL.value, sa_column_kwargs={"server_default": Fund.GENERAL.value})


DISBURSEMENTS: Final = table_of(Disbursement)
