"""The table of matching pools. Amounts are in minor units of the drive's currency."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field

from backbone.database.columns import Utc
from services.leaderboard.tables import Table


class MatchingPool(Table, table=True):
    """The newest state of a pool: `drives.matched` is the sum of `used` of a drive's pools."""

    __tablename__ = "matching_pools"
    __table_args__ = (Index("matching_pools_of_drive", "drive_id", "pool_id"), {"sqlite_with_rowid": False})

    pool_id: str = Field(primary_key=True)
    drive_id: str
    version: int
    sponsor: str
    ratio: str
    cap: int = Field(sa_column=Column(BigInteger, nullable=False))
    used: int = Field(sa_column=Column(BigInteger, nullable=False))
    starts_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    ends_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    ended_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    creator_id: str | None = None
    """The creator whose gifts alone are matched; None: all are, or an earlier version stored it."""


pools: Final = Table.metadata.tables["matching_pools"]
