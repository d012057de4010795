"""The tables of matching pools. Money is in minor units of the pool's currency, which is its drive's."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Index
from sqlmodel import Field

from backbone.database.columns import BIGINT_KEY, Utc
from services.payments.matching.domain import Pool
from services.payments.tables import Table, table_of


class MatchingPool(Table, table=True):
    """What a sponsor promised to a drive, and how much of it gifts have used.

    Pools give in the order of `number`, the order of their creation. `ratio` is in units of
    `domain.RATIO_SCALE`. `version` counts the announced states. `made_by` and `ended_by` are ids of API keys.
    """

    __tablename__ = "matching_pools"
    __table_args__ = (
        CheckConstraint("used >= 0 AND used <= cap", name="matching_pools_within_cap"),
        Index("matching_pools_of_drive", "drive_id", "number"),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    id: str = Field(unique=True)
    drive_id: str
    version: int
    sponsor: str
    currency: str
    cap: int = Field(sa_type=BigInteger)
    used: int = Field(sa_type=BigInteger)
    ratio: int
    per_gift_cap: int | None = Field(sa_type=BigInteger)
    creator_id: str | None
    starts_at: datetime = Field(sa_type=Utc)
    ends_at: datetime | None = Field(sa_type=Utc)
    ended_at: datetime | None = Field(sa_type=Utc)
    made_by: str
    ended_by: str | None
    made_at: datetime = Field(sa_type=Utc)


class MatchingAllocation(Table, table=True):
    """What a pool gives to a payment: `units` now, `original` when the payment was first counted.

    `base` is the payment's net then. `postings` counts the rows of the ledger for it.
    """

    __tablename__ = "matching_allocations"
    __table_args__ = (
        CheckConstraint("units >= 0 AND units <= original", name="matching_allocations_bounds"),
    )

    payment_id: str = Field(primary_key=True)
    pool_id: str = Field(primary_key=True)
    original: int = Field(sa_type=BigInteger)
    base: int = Field(sa_type=BigInteger)
    units: int = Field(sa_type=BigInteger)
    postings: int


class CountedBefore(Table, table=True):
    """A payment that was held after it counted in a drive: it is no new gift once it is released."""

    __tablename__ = "matching_counted_before"

    payment_id: str = Field(primary_key=True)
    drive_id: str = Field(primary_key=True)


POOLS: Final = table_of(MatchingPool)
POOL_COLUMNS: Final = tuple(POOLS.c[each.name] for each in fields(Pool))
"""The columns of a `domain.Pool`, in its order."""
ALLOCATIONS: Final = table_of(MatchingAllocation)
COUNTED_BEFORE: Final = table_of(CountedBefore)
