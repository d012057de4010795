"""The table of exchange rates."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Index, UniqueConstraint, text
from sqlmodel import Field

from backbone.database.columns import BIGINT_KEY, Utc
from services.payments.tables import Table, table_of

ACCEPTED: Final = "refused IS NULL"
"""Rates that are used: the condition of the index `exchange_rates_accepted`."""


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class ExchangeRate(Table, table=True):
    """A rate that was set (`source` api, by `key_id`) or read (`source` ecb); rows are only ever added.

    `version` counts the rows of a pair. `refused` is why a rate that was read is not used. `confirmed` is
    set where an admin said that a rate which differs much is right.
    """

    __tablename__ = "exchange_rates"
    __table_args__ = (
        UniqueConstraint("source_currency", "target_currency", "version", name="exchange_rates_of_pair"),
        Index("exchange_rates_accepted", "source_currency", "target_currency", "version", **_where(ACCEPTED)),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    source_currency: str
    target_currency: str
    version: int
    rate: str
    as_of: datetime = Field(sa_type=Utc)
    source: str
    key_id: str | None
    confirmed: bool
    refused: str | None
    set_at: datetime = Field(sa_type=Utc)


EXCHANGE_RATES: Final = table_of(ExchangeRate)
