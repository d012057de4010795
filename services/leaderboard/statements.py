"""The frequent `INSERT … ON CONFLICT` statements. The first event about a thing inserts its row.

They are built once per dialect, because building a statement costs more than executing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Executable,
    Row,
    String,
    Table,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction, Transaction
from services.leaderboard.tables import (
    clearings,
    creators,
    display_texts,
    donors,
    drives,
    payments,
    pledges,
    second_counts,
)

Insert = postgresql.Insert | sqlite.Insert


@dataclass(frozen=True, slots=True)
class Statements:
    """Each but `add_to_donors` is executed with a list of rows that have different keys.

    Those that add to a row insert it if it is missing.
    """

    make_drives: Executable
    """Keeps existing rows."""
    name_drives: Executable
    name_creators: Executable
    """Keeps rows of the same or a higher version."""
    keep_pledges: Executable
    """Does not change `paid` and `payment_id`."""
    mark_paid: Executable
    """Returns (drive_id, open, amount) of pledges that were not paid before."""
    add_payments: Executable
    """Keeps existing rows. Its row count is that of the rows it inserted."""
    keep_payments: Executable
    add_to_clearings: Executable
    credit_creators: Executable
    """Adds to `raised` and `donations`; `reached_at` only moves forward, and stays if none is given."""
    recompute_reached_at: Executable
    """Computes `reached_at` of `of_creator` again from the payments that still count."""
    add_to_donors: Executable
    """Adds `nets`, JSON with an amount for each donor, in `of_drive`; returns (donor_id, net) after that."""
    add_second_counts: Executable
    request_publication: Executable
    """Keeps existing rows."""
    keep_display_texts: Executable
    """Keeps texts that follow the same or a later decision, and those that a later one was announced for."""
    withdraw_display_texts: Executable
    """Deletes texts that a decision of this number hides; keeps those of the same or a later decision."""
    renew_display_texts: Executable
    """Has texts fetched again that a decision of this number shows; keeps those that follow it already."""


def statements(bind: Transaction | SyncTransaction) -> Statements:
    """The statements in the dialect of `bind`."""
    return _of(bind.dialect.name)


@cache
def _of(dialect: str) -> Statements:
    def into(table: Table) -> Insert:
        return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)

    return Statements(
        make_drives=into(drives).on_conflict_do_nothing(),
        name_drives=_replacing(into(drives), "version", "state", "slug", "title", "goal", "test"),
        name_creators=_naming(into(creators)),
        keep_pledges=_replacing(into(pledges), "drive_id", "version", "open", "amount"),
        mark_paid=_marking_paid(into(pledges)),
        add_payments=into(payments).on_conflict_do_nothing(),
        keep_payments=_replacing(
            into(payments),
            *("drive_id", "version", "pledge_id", "creator_id", "donor_id", "counted"),
            *("currency", "captured", "refunded", "disputed", "captured_at"),
            *("donor_key", "source_key", "number", "ranked_version", "offline"),
            *("given_captured", "given_refunded", "given_disputed"),
        ),
        add_to_clearings=_adding(into(clearings), "net", "held"),
        credit_creators=_crediting(into(creators), func.max if dialect == "sqlite" else func.greatest),
        recompute_reached_at=_recomputing_reached_at(),
        add_to_donors=_adding_to_donors(into(donors)),
        add_second_counts=_adding(into(second_counts), "donations", "raised"),
        request_publication=into(second_counts).on_conflict_do_nothing(),
        keep_display_texts=_keeping_texts(into(display_texts)),
        withdraw_display_texts=_deciding(into(display_texts), "name", "message", "version", "decided"),
        renew_display_texts=_deciding(into(display_texts), "decided"),
    )


def _upsert(made: Insert, new: Mapping[str, Any], where: Any = None) -> Insert:
    key = list(made.table.primary_key)
    return made.on_conflict_do_update(index_elements=key, set_=dict(new), where=where)


def _keeping_texts(made: Insert) -> Insert:
    new = {name: made.excluded[name] for name in ("name", "message", "version")}
    later = and_(
        made.excluded.version > display_texts.c.version, made.excluded.version >= display_texts.c.decided
    )
    return _upsert(made, new, where=later)


def _deciding(made: Insert, *names: str) -> Insert:
    later = and_(
        made.excluded.decided > display_texts.c.decided, made.excluded.decided > display_texts.c.version
    )
    return _upsert(made, {name: made.excluded[name] for name in names}, where=later)


def _marking_paid(made: Insert) -> Executable:
    new = {name: made.excluded[name] for name in ("paid", "payment_id")}
    marking = _upsert(made, new, where=pledges.c.paid.is_(False))
    return marking.returning(pledges.c.drive_id, pledges.c.open, pledges.c.amount)


def _replacing(made: Insert, *names: str) -> Insert:
    return _upsert(made, {name: made.excluded[name] for name in names})


def _adding(made: Insert, *names: str) -> Insert:
    return _upsert(made, {name: made.table.c[name] + made.excluded[name] for name in names})


def _adding_to_donors(made: Insert) -> Executable:
    """One execution for all donors of a drive: SQLite would execute `VALUES … RETURNING` once for each."""
    nets = bindparam("nets", type_=String)
    if isinstance(made, sqlite.Insert):
        given = func.json_each(nets).table_valued("key", "value")
        net: ColumnElement[int] = given.c.value
    else:
        given = func.json_each_text(cast(nets, JSON)).table_valued("key", "value")
        net = cast(given.c.value, BigInteger)
    # SQLite reads `ON CONFLICT` after a SELECT without WHERE as the condition of a join.
    rows = select(bindparam("of_drive", type_=String), given.c.key, net).where(
        literal_column("1") == literal_column("1")
    )
    adding = _adding(made.from_select(["drive_id", "donor_id", "net"], rows), "net")
    return adding.returning(donors.c.donor_id, donors.c.net)


def _naming(made: Insert) -> Insert:
    new = {name: made.excluded[name] for name in ("drive_id", "version", "slug", "name", "team")}
    return _upsert(made, new, where=creators.c.version < made.excluded.version)


def _crediting(made: Insert, later: Any) -> Insert:
    known, new_one = creators.c.reached_at, made.excluded.reached_at
    new = {name: creators.c[name] + made.excluded[name] for name in ("raised", "donations")}
    return _upsert(
        made, new | {"reached_at": later(func.coalesce(known, new_one), func.coalesce(new_one, known))}
    )


def _recomputing_reached_at() -> Executable:
    net = payments.c.captured - payments.c.refunded - payments.c.disputed
    latest = select(func.max(payments.c.captured_at)).where(
        payments.c.creator_id == bindparam("of_creator"), payments.c.counted, net > 0
    )
    return (
        update(creators)
        .where(creators.c.creator_id == bindparam("of_creator"))
        .values(reached_at=latest.scalar_subquery())
    )


def by_id(
    transaction: SyncTransaction, column: Column[str], ids: Iterable[str], *, lock: bool = False
) -> dict[str, Row[Any]]:
    """The rows of `column`'s table with these ids, by id; with `lock`, locked in the order of their ids."""
    rows = transaction.execute(_selecting(column, lock), {"wanted": list(ids)})
    return {getattr(row, column.name): row for row in rows}


@cache
def _selecting(column: Column[str], lock: bool) -> Executable:
    """Cached: building the statement costs more than executing it."""
    found = select(column.table).where(one_of(column, "wanted"))
    return found.order_by(column).with_for_update() if lock else found
