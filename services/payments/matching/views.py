"""A matching pool as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.http.fields import (
    CreatorIdView,
    DriveIdView,
    MoneyView,
    TimestampView,
    id_schema,
    text_schema,
    with_examples,
)
from backbone.money import as_json
from services.payments.matching.domain import Pool, PoolState, state_of
from services.payments.matching.ratio import RATIO_PATTERN, ratio_text
from services.payments.matching.tables import POOL_COLUMNS, POOLS

PoolIdView = Annotated[str, id_schema("mch")]

SHOWN_COLUMNS: Final = (*POOL_COLUMNS, POOLS.c.made_at)


class PoolView(BaseModel):
    """A matching pool. `used` is what gifts have got so far, `remaining` what is left of `cap`."""

    model_config = with_examples(
        {
            "id": "mch_01frtz5n00000000000000000f",
            "drive": "drv_01frtz5n00000000000000000a",
            "sponsor": "Acme",
            "cap": {"currency": "USD", "value": "5000.00"},
            "used": {"currency": "USD", "value": "1250.00"},
            "remaining": {"currency": "USD", "value": "3750.00"},
            "ratio": "1.00",
            "per_gift_cap": None,
            "creator": None,
            "state": "active",
            "starts_at": "2026-01-07T18:00:00.000Z",
            "ends_at": None,
            "ended_at": None,
            "created_at": "2026-01-07T18:00:00.000Z",
        }
    )

    id: PoolIdView
    drive: DriveIdView
    sponsor: str
    cap: MoneyView
    used: MoneyView
    remaining: MoneyView
    ratio: Annotated[str, text_schema(RATIO_PATTERN)]
    per_gift_cap: MoneyView | None
    creator: CreatorIdView | None
    state: PoolState
    starts_at: TimestampView
    ends_at: TimestampView | None
    ended_at: TimestampView | None = Field(description="When the drive's owner ended it early.")
    created_at: TimestampView


class PoolPage(BaseModel):
    """A page of a drive's pools, in the order in which they give; pass `next` as `after`."""

    data: list[PoolView]
    next: str | None


def pool_view(row: Row[Any], now: datetime) -> dict[str, Any]:
    """A row of `SHOWN_COLUMNS` as the API shows it at `now`."""
    columns: tuple[Any, ...] = tuple(row)
    return view_of(Pool(*columns[:-1]), row.made_at, now)


def view_of(pool: Pool, made_at: datetime, now: datetime) -> dict[str, Any]:
    """A pool as the API shows it at `now`."""

    def money(units: int) -> dict[str, str]:
        return as_json(units, pool.currency)

    return {
        "id": pool.id,
        "drive": pool.drive_id,
        "sponsor": pool.sponsor,
        "cap": money(pool.cap),
        "used": money(pool.used),
        "remaining": money(pool.remaining),
        "ratio": ratio_text(pool.ratio),
        "per_gift_cap": None if pool.per_gift_cap is None else money(pool.per_gift_cap),
        "creator": pool.creator_id,
        "state": state_of(pool, now),
        "starts_at": rfc3339(pool.starts_at),
        "ends_at": None if pool.ends_at is None else rfc3339(pool.ends_at),
        "ended_at": None if pool.ended_at is None else rfc3339(pool.ended_at),
        "created_at": rfc3339(made_at),
    }
