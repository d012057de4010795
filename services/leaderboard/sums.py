"""Statements that add payments to sums, and take them out again, a whole set at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Executable,
    FromClause,
    Select,
    Table,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from backbone.database.columns import Utc
from services.leaderboard.tables import COUNTED, creators, donors, payments, sources

WINDOWS: Final[Mapping[str, timedelta]] = {"day": timedelta(hours=24), "hour": timedelta(hours=1)}
"""How long each window is, by the prefix of its columns."""
NET: Final = payments.c.captured - payments.c.refunded - payments.c.disputed
OF_DRIVE: Final = payments.c.drive_id == bindparam("of_drive")
COUNTED_PAYMENTS: Final = text(COUNTED)


class Ranked(NamedTuple):
    """A table of sums, its key, and the column of `payments` and `superseded` that names the key."""

    table: Table
    key: Column[Any]
    named: str
    in_all: bool = True
    """Whether the sums over all time are added here. Creators' are added with the payment's event."""


RANKED: Final = (
    Ranked(creators, creators.c.creator_id, "creator_id", in_all=False),
    Ranked(donors, donors.c.donor_id, "donor_key"),
    Ranked(sources, sources.c.source, "source_key"),
)


def adding_to(ranked: Ranked, dialect: str, new: tuple[ColumnElement[bool], ...]) -> Executable:
    """Adds the payments of `new` to the sums, all time and windows; inserts the rows that are missing."""
    key = payments.c[ranked.named]
    sums = {
        f"{window}_{name}": summed
        for window in WINDOWS
        for name, summed in sums_of(NET, payments.c.captured_at > bindparam(f"{window}_edge", type_=Utc))
    }
    if not ranked.in_all:
        added = sums_by(key, sums, OF_DRIVE, COUNTED_PAYMENTS, *new).subquery("added")
        return updating(ranked, added, sums, +1)
    sums |= dict(sums_of(NET))
    reached_at = func.max(case((literal_column("0") < NET, payments.c.captured_at)))
    found = sums_by(key, sums | {"reached_at": reached_at}, OF_DRIVE, COUNTED_PAYMENTS, *new)
    table = ranked.table
    added = found.subquery("added")
    values: dict[str, Any] = {"drive_id": bindparam("of_drive"), ranked.key.name: added.c.key}
    values |= {name: added.c[name] for name in (*sums, "reached_at")}
    if table is donors:
        values["net"] = literal_column("0")  # of all gifts; it is added with the payment's event
    # SQLite reads `ON CONFLICT` after a SELECT without WHERE as the condition of a join.
    chosen = select(*values.values()).where(literal_column("1") == literal_column("1"))
    made = (sqlite if dialect == "sqlite" else postgresql).insert(table).from_select(list(values), chosen)
    later = func.max if dialect == "sqlite" else func.greatest
    known, new_one = table.c.reached_at, made.excluded.reached_at
    new_values: dict[str, Any] = {name: table.c[name] + made.excluded[name] for name in sums}
    new_values["reached_at"] = later(func.coalesce(known, new_one), func.coalesce(new_one, known))
    upsert: Executable = made.on_conflict_do_update(index_elements=list(table.primary_key), set_=new_values)
    return upsert


def sums_of(
    net: ColumnElement[int], condition: ColumnElement[bool] | None = None
) -> Iterator[tuple[str, ColumnElement[int]]]:
    """The amount and the number of the donations among the payments of which `condition` is true."""
    gifts = case((net > literal_column("0"), literal_column("1")), else_=literal_column("0"))
    for name, value in (("raised", net), ("donations", gifts)):
        chosen = value if condition is None else case((condition, value), else_=literal_column("0"))
        yield name, cast(func.sum(chosen), BigInteger)


def sums_by(key: Column[Any], sums: Mapping[str, Any], *conditions: Any) -> Select[Any]:
    """The sums of the payments that fit the conditions, by `key`."""
    columns = [summed.label(name) for name, summed in sums.items()]
    return select(key.label("key"), *columns).where(key.is_not(None), *conditions).group_by(key)


def updating(ranked: Ranked, found: FromClause, names: Mapping[str, Any], sign: int) -> Executable:
    """Adds (`sign` 1) or subtracts (-1) the sums `found` by key; the rows exist."""
    table = ranked.table
    values = {name: table.c[name] + sign * found.c[name] for name in names}
    same_key = ranked.key == found.c.key
    if table is not creators:  # a creator belongs to one drive, also while a payment names another
        same_key = and_(table.c.drive_id == bindparam("of_drive"), same_key)
    return update(table).where(same_key).values(values)


def recomputing_reached_at(ranked: Ranked, rows: FromClause, *found_by: ColumnElement[bool]) -> Executable:
    """Computes `reached_at` of the rows with the keys in `rows` again from the payments they still sum.

    Those are the payments up to number `summed`. A later one may change before it is added, and would leave
    its moment behind. `found_by` is what else is true of all payments of such a row, for an index.
    """
    latest = (
        select(payments.c.captured_at)
        .where(OF_DRIVE, payments.c[ranked.named] == rows.c.key, COUNTED_PAYMENTS, literal_column("0") < NET)
        .where(payments.c.captured_at.is_not(None), payments.c.number <= bindparam("summed"), *found_by)
        .order_by(payments.c.captured_at.desc())
        .limit(literal_column("1"))
        .correlate(rows)
    )
    lost = ranked.table.c.drive_id == bindparam("of_drive"), ranked.key == rows.c.key
    return update(ranked.table).where(*lost).values(reached_at=latest.scalar_subquery())
