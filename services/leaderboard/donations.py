"""Reads of a drive's donations, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, and_, bindparam, or_, select

from backbone.clock import rfc3339
from backbone.database.columns import Utc, from_microseconds, microseconds
from backbone.database.transaction import SyncTransaction
from backbone.money import as_json
from services.leaderboard.display_texts import ANONYMOUS, DonorTexts
from services.leaderboard.sums import COUNTED_PAYMENTS, NET
from services.leaderboard.tables import payments

PATTERN: Final = r"^[0-9]{1,17}\.pay_[0-9a-z_]{1,40}$"
"""What `str` makes of a position."""


class Position(NamedTuple):
    """A place in the list: the donation that was captured at `at`, and its payment's id."""

    at: datetime
    payment_id: str

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ValueError for any text that `str` did not make."""
        moment, dot, payment_id = text.partition(".")
        if not dot or not payment_id or not (moment.isascii() and moment.isdigit() and len(moment) < 18):
            raise ValueError(text)
        return cls(from_microseconds(int(moment)), payment_id)

    def __str__(self) -> str:
        return f"{microseconds(self.at)}.{self.payment_id}"


_page: Final = (
    select(
        payments.c.payment_id,
        payments.c.pledge_id,
        payments.c.creator_id,
        payments.c.captured,
        payments.c.given_captured,
        payments.c.captured_at,
        payments.c.currency,
    )
    .where(payments.c.drive_id == bindparam("of_drive"), COUNTED_PAYMENTS, NET > 0)
    .where(payments.c.captured_at.is_not(None))
    .order_by(payments.c.captured_at.desc(), payments.c.payment_id.desc())
    .limit(bindparam("most"))
)
_at: Final = bindparam("at", type_=Utc)
_AFTER: Final = _page.where(
    payments.c.captured_at <= _at,
    or_(
        payments.c.captured_at < _at,
        and_(payments.c.captured_at == _at, payments.c.payment_id < bindparam("id")),
    ),
)


def page(
    transaction: SyncTransaction, drive_id: str, after: Position | None, limit: int
) -> tuple[list[Row[Any]], Position | None]:
    """Up to `limit` donations that count, and the position of the next page (None at the end).

    A donation that was refunded in full, or is held, is not listed.
    """
    values: dict[str, Any] = {"of_drive": drive_id, "most": limit + 1}
    if after is not None:
        values |= {"at": after.at, "id": after.payment_id}
    rows: list[Row[Any]] = list(transaction.execute(_page if after is None else _AFTER, values))
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Position(last.captured_at, last.payment_id)


def _amounts(row: Row[Any], currency: str) -> dict[str, Any]:
    """The gift as it was given, and what it counts as in the drive's currency."""
    reporting = as_json(row.captured, currency)
    given = reporting if row.given_captured is None else as_json(row.given_captured, row.currency)
    return {"amount": given, "reporting_amount": reporting}


def recent_json(row: Row[Any], currency: str) -> dict[str, Any]:
    """A donation, with its donor's texts in the row, as `recent` shows it."""
    return {
        "id": f"don_{row.payment_id.removeprefix('pay_')}",
        "name": row.name,
        "message": row.message,
        **_amounts(row, currency),
        "creator": row.creator_id,
        "at": rfc3339(row.at),
    }


def shown(row: Row[Any], texts: Mapping[str, DonorTexts], currency: str) -> dict[str, Any]:
    """A donation as `recent` shows it."""
    said = texts.get(row.pledge_id, ANONYMOUS)
    return {
        "id": f"don_{row.payment_id.removeprefix('pay_')}",
        "name": said.name,
        "message": said.message,
        **_amounts(row, currency),
        "creator": row.creator_id,
        "at": rfc3339(row.captured_at),
    }
