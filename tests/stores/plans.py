"""Record the statements that services execute, and have the databases explain their plans."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    TypeDecorator,
    event,
)

from backbone.database.one_of import FROM_HEX
from backbone.database.plans import Plan, Rows
from backbone.database.sqlite import SqliteTransaction

_EXPLAINED: Final = re.compile(
    r"\s*(?:(?:SELECT|UPDATE|DELETE|WITH)\b|INSERT INTO .*\bSELECT\b.*\bFROM (?!json_each|unnest))",
    re.IGNORECASE | re.DOTALL,
)
_LIST: Final = re.compile(r"\((?:\?|\$\d+::\w+|, |\(|\))+\)")
_LIMIT: Final = re.compile(r"\bORDER BY \w+\.\w+( DESC)?(, \w+\.\w+( DESC)?)*\s+LIMIT\b")
_SCAN: Final = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
_RANGE: Final = re.compile(r"SEARCH (\w+) USING INTEGER PRIMARY KEY (\()rowid[<>]")
"""All rows after a number. It counts as a full scan: no statement starts at a number near the end."""


SQLITE_ROWS: Final = 20_000
STEPS: Final = 2 * SQLITE_ROWS
"""SQLite takes at least three for each row that it reads."""
_STEPS_AT_ONCE: Final = 1_000


@dataclass
class Recorded:
    """The distinct statements that were executed, each with the parameters of its first execution.

    `steps` has, of SQLite's, the most instructions of its virtual machine that one execution took, whether
    SQLAlchemy or the driver executed it.
    """

    statements: dict[str, Sequence[Any]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    _now: dict[sqlite3.Connection, int] = field(default_factory=dict)

    def count_steps(self, connection: Any, _record: Any) -> None:
        """SQLAlchemy's `connect`."""
        if isinstance(connection, sqlite3.Connection):

            def step() -> int:
                self._now[connection] = self._now.get(connection, 0) + _STEPS_AT_ONCE
                return 0

            connection.set_progress_handler(step, _STEPS_AT_ONCE)

    def begin(self, _connection: Any, cursor: Any, *_arguments: Any) -> None:
        """SQLAlchemy's `before_cursor_execute`."""
        self._now.pop(getattr(cursor, "connection", None), None)

    def end(
        self, _connection: Any, cursor: Any, statement: str, _parameters: Any, _context: Any, many: bool
    ) -> None:
        """SQLAlchemy's `after_cursor_execute`. An UPDATE has worked by then; most of a SELECT as well."""
        self._add(statement, self._now.pop(getattr(cursor, "connection", None), 0), many)

    def _add(self, statement: str, steps: int, many: bool) -> None:
        if steps and not many:
            self.steps[statement] = max(self.steps.get(statement, 0), steps)

    def counted(self, execute: Callable[..., Rows]) -> Callable[..., Rows]:
        """`SqliteTransaction`'s execution of a compiled statement, which SQLAlchemy does not see."""

        def executed(transaction: SqliteTransaction, plan: Plan, rows: Sequence[Any]) -> Rows:
            driver = transaction._driver
            self._now.pop(driver, None)
            found = execute(transaction, plan, rows)
            self._add(plan.sql, self._now.pop(driver, 0), len(rows) > 1)
            return found

        return executed

    def note(
        self, _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        """SQLAlchemy's `before_cursor_execute`."""
        if _EXPLAINED.match(statement) and "sqlite_master" not in statement and "pg_catalog" not in statement:
            self.statements.setdefault(statement, tuple(parameters[0] if many else parameters))


@contextmanager
def recording() -> Iterator[Recorded]:
    """Record what every engine of this process executes, except inserts of given values, which read nothing.

    Steps are counted of connections opened meanwhile.
    """
    recorded = Recorded()
    execute_plan = SqliteTransaction._execute_plan
    SqliteTransaction._execute_plan = recorded.counted(execute_plan)  # type: ignore[method-assign]
    listeners = {
        "before_cursor_execute": (recorded.note, recorded.begin),
        "after_cursor_execute": (recorded.end,),
        "connect": (recorded.count_steps,),
    }
    for name, listening in listeners.items():
        for listener in listening:
            event.listen(Engine, name, listener)
    try:
        yield recorded
    finally:
        SqliteTransaction._execute_plan = execute_plan  # type: ignore[method-assign]
        for name, listening in listeners.items():
            for listener in listening:
                event.remove(Engine, name, listener)


async def fill(url: str, metadata: MetaData, rows: int, given: Mapping[str, Mapping[str, str]]) -> None:
    """Put `rows` rows into each table of `given` and gather statistics; on SQLite `SQLITE_ROWS`, and none.

    `given` has SQL expressions of `n`, the row's number, by column; other columns are null or plain.
    """
    if url.startswith("sqlite"):
        _fill_sqlite(url.removeprefix("sqlite:///"), metadata, given)
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")  # without foreign keys
        for name, values in given.items():
            names, chosen = _columns(metadata, name, values)
            await connection.execute(
                f"INSERT INTO {name} ({names}) SELECT {chosen} FROM generate_series(1, {rows}) AS n"
            )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def _columns(metadata: MetaData, table: str, values: Mapping[str, str]) -> tuple[str, str]:
    """The columns to fill, and their expressions."""
    columns = {
        column.name: values.get(column.name) or _plain(column)
        for column in metadata.tables[table].columns
        if column.autoincrement is not True
    }
    return ", ".join(f'"{column}"' for column in columns), ", ".join(columns.values())


def _fill_sqlite(file: str, metadata: MetaData, given: Mapping[str, Mapping[str, str]]) -> None:
    """The same with PostgreSQL's functions; its casts are left out."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("lpad", 3, lambda text, width, by: str(text).rjust(width, by))
        connection.create_function("md5", 1, lambda text: hashlib.md5(str(text).encode()).hexdigest())  # noqa: S324
        connection.create_function("decode", 2, lambda text, _: bytes.fromhex(text))
        for name, values in given.items():
            names, chosen = _columns(metadata, name, values)
            connection.execute(
                f"INSERT INTO {name} ({names}) WITH RECURSIVE series(n) AS "
                f"(SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {SQLITE_ROWS}) "
                f"SELECT {re.sub('::[a-z]+', '', chosen)} FROM series"
            )


def _plain(column: Column[Any]) -> str:
    if column.nullable:
        return "NULL"
    kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    for known, plain in _PLAIN.items():
        if isinstance(kind, known):
            return plain
    raise AssertionError(f"{column} needs a value")


_PLAIN: Final[Mapping[type, str]] = {
    JSON: "'[]'", Boolean: "false", Integer: "1", LargeBinary: "'x'::bytea", String: "'x'"
}  # fmt: skip


async def scans(
    url: str, recorded: Recorded, growing: Collection[str], walked: Collection[str] = ()
) -> dict[str, str]:
    """The recorded statements that read the whole of one of the tables `growing`, each with the reason.

    A partial index, whose entries are only the rows still to be worked on, may be read whole. SQLite's plans
    do not tell how many rows a search finds: there, no execution may take as many steps as a table has rows.

    Statements that contain one of the texts `walked` may walk along an index, if they stop at a LIMIT:
    both stores report such a walk as a scan of everything. One that sorts is reported.
    """
    if url.startswith("sqlite"):
        found = _sqlite_scans(url.removeprefix("sqlite:///"), recorded, growing, walked)
        for statement, steps in recorded.steps.items():
            if steps > STEPS and statement in recorded.statements:
                found.setdefault(statement, f"{steps:,} steps, as if it read all of {SQLITE_ROWS:,} rows")
    else:
        found = await _postgres_scans(url, recorded, growing, walked)
    return {_LIST.sub("(…)", statement): reason for statement, reason in found.items()}


def _sqlite_scans(
    file: str, recorded: Recorded, growing: Collection[str], walked: Collection[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    with sqlite3.connect(file) as connection:
        connection.create_function(FROM_HEX, 1, bytes.fromhex)
        partial = {
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%'"
            )
        }
        for statement, parameters in recorded.statements.items():
            aliases = _aliases(statement)
            explained = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = [detail for *_, detail in explained]
            if any(text in statement for text in walked) and stops_at_its_limit(statement, plan):
                continue
            for detail in plan:
                scan = _SCAN.match(detail) or _RANGE.match(detail)
                if scan and aliases.get(scan[1], scan[1]) in growing and scan[2] not in partial:
                    found[statement] = detail
    connection.close()
    return found


def stops_at_its_limit(statement: str, plan: Sequence[str]) -> bool:
    """Whether SQLite reads rows in the order of the key up to the LIMIT, instead of sorting them all."""
    return bool(_LIMIT.search(statement)) and not any("TEMP B-TREE" in detail for detail in plan)


def _aliases(statement: str) -> dict[str, str]:
    return {alias: table for table, alias in re.findall(r"\b(\w+) AS (\w+)\b", statement)}


async def _postgres_scans(
    url: str, recorded: Recorded, growing: Collection[str], walked: Collection[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indpred IS NOT NULL"
        )
        partial = {row["relname"] for row in rows}
        for statement, parameters in recorded.statements.items():
            explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters)
            plan = json.loads(explained)[0]["Plan"]
            if any(text in statement for text in walked) and walks_to_its_limit(plan):
                continue
            for node in _nodes(plan):
                if (reason := _reads_all(node, growing, partial)) is not None:
                    found[statement] = reason
    finally:
        await connection.close()
    return found


def walks_to_its_limit(plan: dict[str, Any]) -> bool:
    """Whether PostgreSQL reads an index in its order, directly below a LIMIT."""
    limits = [node for node in _nodes(plan) if node["Node Type"] == "Limit"]
    scans_of_tables = [node for node in _nodes(plan) if "Relation Name" in node]
    below = [inner for limit in limits for inner in limit["Plans"]]
    return below == scans_of_tables and all(node["Node Type"].startswith("Index") for node in below)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _reads_all(node: dict[str, Any], growing: Collection[str], partial: Collection[str]) -> str | None:
    kind, table, index = node["Node Type"], node.get("Relation Name"), node.get("Index Name")
    if kind == "Seq Scan" and table in growing:
        return f"Seq Scan on {table}, {node.get('Filter', 'no filter')[:300]}"
    if index is None or index in partial or "Index Cond" in node:
        return None
    if table in growing or kind == "Bitmap Index Scan":
        return f"{kind} of all of {index} on {table}, {node.get('Filter', 'no filter')}"
    return None
