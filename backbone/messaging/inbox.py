"""The inbox: an event is recorded in the transaction that handles it, so that each is handled once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from sqlalchemy import Executable, String, Table, bindparam, func, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from backbone.bus.protocol import Partition, Positions, Record
from backbone.database.columns import Utc
from backbone.database.database import Database
from backbone.database.transaction import Transaction, messaging_tables_of
from backbone.periodic import BATCH, delete_oldest

KEEP: Final = timedelta(days=7)
"""How long a repeated event is recognised by its id. By its position it is recognised for ever."""


class Fenced(Exception):
    """Another consumer owns the partition now; this one must stop and reload its positions."""


async def load_positions(database: Database, group: str, partitions: Sequence[Partition]) -> Positions:
    """The offsets at which `group` resumes, from its own database."""
    positions = database.messaging_tables.positions
    async with database.reading() as session:
        rows = await session.execute(_positions_statement(positions), {"of_group": group})
        known = {Partition(row.topic, row.partition): row.next for row in rows}
    return {partition: known[partition] for partition in partitions if partition in known}


@lru_cache(maxsize=32)
def _positions_statement(positions: Table) -> Executable:
    return select(positions).where(positions.c.group == bindparam("of_group"))


async def advance(session: Transaction, group: str, records: Sequence[Record], expected: Positions) -> None:
    """Move each partition's offset row past `records`, if it stands where this consumer left it.

    Raises `Fenced` where it does not.
    """
    positions = messaging_tables_of(session).positions
    for partition, after in next_positions(records).items():
        values = {
            "of_group": group,
            "of_topic": partition.topic,
            "of_partition": partition.number,
            "expected": expected.get(partition, 0),
            "after": after,
        }
        moved = await session.execute(_advance_statement(positions), values)
        if moved.rowcount == 0 and not await _insert_position(session, positions, group, partition, after):
            raise Fenced(f"{group} {partition}")


@lru_cache(maxsize=32)
def _advance_statement(positions: Table) -> Executable:
    """Built once: building it costs more than running it."""
    return (
        update(positions)
        .where(positions.c.group == bindparam("of_group"), positions.c.topic == bindparam("of_topic"))
        .where(positions.c.partition == bindparam("of_partition"))
        .where(positions.c.next == bindparam("expected"))
        .values(next=bindparam("after"))
    )


async def _insert_position(
    session: Transaction, positions: Table, group: str, partition: Partition, after: int
) -> bool:
    values = {"group": group, "topic": partition.topic, "partition": partition.number, "next": after}
    made = await session.execute(insert_new(session, positions, "partition"), values)
    return made.first() is not None


async def record_new(session: Transaction, group: str, records: Sequence[Record]) -> list[Record]:
    """Those of `records` that `group` has not handled before, now recorded."""
    inbox = messaging_tables_of(session).inbox
    by_id = {record.id: record for record in records}
    heard_at = datetime.now(UTC)
    if session.dialect.name == "sqlite":
        given = {"of_group": group, "ids": json.dumps(list(by_id)), "now": heard_at}
        made = await session.execute(_record_list(inbox), given)
    else:
        rows = [{"group": group, "event_id": event_id, "heard_at": heard_at} for event_id in by_id]
        made = await session.execute(_record_rows(inbox), rows)
    new_ids = {row.event_id for row in made}
    return [record for event_id, record in by_id.items() if event_id in new_ids]


@lru_cache(maxsize=32)
def _record_rows(inbox: Table) -> Executable:
    """For PostgreSQL, which gets the rows as arrays."""
    statement: Executable = postgresql.insert(inbox).on_conflict_do_nothing().returning(inbox.c.event_id)
    return statement


@lru_cache(maxsize=32)
def _record_list(inbox: Table) -> Executable:
    """For SQLite, which would execute a statement that returns something once for each row."""
    ids = func.json_each(bindparam("ids", type_=String)).table_valued("value")
    rows = select(bindparam("of_group", type_=String), ids.c.value, bindparam("now", type_=Utc))
    # SQLite reads `ON CONFLICT` after a SELECT without WHERE as the condition of a join.
    rows = rows.where(literal_column("1") == literal_column("1"))
    statement = sqlite.insert(inbox).from_select(["group", "event_id", "heard_at"], rows)
    returning: Executable = statement.on_conflict_do_nothing().returning(inbox.c.event_id)
    return returning


def insert_new(session: Transaction, table: Table, returning: str) -> Executable:
    """`INSERT … ON CONFLICT DO NOTHING RETURNING` a column; execute it with a row."""
    return _insert_new(session.dialect.name, table, returning)


@lru_cache(maxsize=32)
def _insert_new(dialect: str, table: Table, returning: str) -> Executable:
    """Built once: with the row in it, it would be compiled for each execution."""
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(table).on_conflict_do_nothing()
    found: Executable = statement.returning(table.c[returning])
    return found


async def delete_expired(database: Database, keep: timedelta = KEEP, at_most: int = BATCH) -> int:
    """Drop up to `at_most` entries older than `keep`, the oldest first; how many there were."""
    return await delete_oldest(
        database, database.messaging_tables.inbox.c.heard_at, datetime.now(UTC) - keep, at_most
    )


def next_positions(records: Sequence[Record]) -> dict[Partition, int]:
    """The position after the last of `records`, by partition."""
    after: dict[Partition, int] = {}
    last: Record | None = None
    for record in records:  # most are in one piece with those of their partition
        if last is not None and record.partition is not last.partition:
            after[last.partition] = last.offset + 1
        last = record
    if last is not None:
        after[last.partition] = last.offset + 1
    return after
