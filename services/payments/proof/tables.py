"""The newest audit of each drive."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.tables import Table, _where, table_of

ASKED: Final = "asked_at IS NOT NULL"
"""Drives of which an audit was asked for: the condition of a partial index."""


class Proof(Table, table=True):
    """The newest audit of a drive. `asked_at` is set while another one is asked for.

    `reply` is what `GET /v1/drives/{drive}/audit` answers, None before the first audit; `differences` is how
    many were found, and `minor_units` how much money they are in the drive's currency.
    """

    __tablename__ = "proofs"
    __table_args__ = (Index("proofs_asked", "asked_at", **_where(ASKED)),)

    drive_id: str = Field(primary_key=True)
    asked_at: datetime | None = Field(sa_type=Utc)
    made_at: datetime | None = Field(sa_type=Utc)
    took_ms: int
    reply: Any = Field(sa_column=Column(JSON(none_as_null=True)))
    differences: int
    minor_units: int = Field(sa_type=BigInteger)
    currency: str | None


PROOFS: Final = table_of(Proof)
