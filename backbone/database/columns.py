"""Column types that read the same on PostgreSQL and SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Integer
from sqlalchemy.types import TypeDecorator

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

BIGINT_KEY = BigInteger().with_variant(Integer, "sqlite")
"""An auto-incremented key. SQLite increments only columns of type INTEGER."""


class Utc(TypeDecorator[datetime]):
    """An aware UTC timestamp, stored as microseconds since 1970: exact, and the same on both stores."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else from_microseconds(value)


def microseconds(value: datetime) -> int:
    """Whole microseconds from 1970 to `value`."""
    return (value - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The aware UTC timestamp `value` microseconds after 1970."""
    return _EPOCH + _MICROSECOND * value
