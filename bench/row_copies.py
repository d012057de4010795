"""Multiplies the stored rows of an embedded run, so that it has stored many donations within seconds.

Each copy of a row has identifiers of its own, the same for one donation in all tables, so that every index
has as many entries as after real donations. Drives, creators and counters are not copied. Sums do not agree
afterwards: copies are for measuring cost, not for books.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

DATABASES: Final = ("pledges", "payments", "leaderboard")
LEAST_SHARE: Final = 0.3
"""Tables with fewer rows than this share of the pledges do not grow with each donation."""
_KEPT: Final = frozenset({"drive_id", "creator_id", "scope", "group", "partner", "topic", "name", "kind"})
_NEVER: Final = frozenset({"alembic_version", "outbox", "positions", "paces", "drives", "creators"})
_COPY: Final = "number_of_the_copy"
"""A name that no column of a table has."""
_IDENTIFIERS: Final = frozenset({"id", "intent", "cause", "key"})


def multiply(data: Path, stored: int) -> int:
    """Copy the rows in `data` until there are `stored` pledges; returns how many there are then."""
    present = count_pledges(data)
    copies = max(0, -(-stored // max(present, 1)) - 1)
    for name in DATABASES:
        with closing(sqlite3.connect(data / f"{name}.db", isolation_level=None)) as database:
            _multiply(database, copies, int(present * LEAST_SHARE))
    return present * (copies + 1)


def count_pledges(data: Path) -> int:
    """The pledges stored in `data`."""
    with closing(sqlite3.connect(data / "pledges.db")) as pledges:
        return int(pledges.execute("SELECT count(*) FROM pledges").fetchone()[0])


def _multiply(database: sqlite3.Connection, copies: int, least: int) -> None:
    # Gigabytes are written, and a crash may lose them. Services set the journal's mode again.
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("BEGIN IMMEDIATE")
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table in _NEVER or table.startswith("sqlite_"):
            continue
        (rows,) = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()
        if rows >= max(least, 1):
            _copy_rows(database, table, copies)
    if _has(database, "drive_log"):
        newest = "(SELECT coalesce(max(sequence), 0) FROM drive_log l WHERE l.drive_id = drives.drive_id)"
        database.execute(f"UPDATE drives SET sequence = max(sequence, {newest})")
    database.execute("COMMIT")


def _has(database: sqlite3.Connection, table: str) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def _copy_rows(database: sqlite3.Connection, table: str, copies: int) -> None:
    columns = database.execute(f'PRAGMA table_info("{table}")').fetchall()
    unique = _unique_columns(database, table)
    names, values = [], []
    for _, name, kind, _, _, key in columns:
        if key and kind.upper() == "INTEGER" and len([one for one in columns if one[5]]) == 1:
            continue  # SQLite assigns it
        names.append(f'"{name}"')
        values.append(_value_of(table, name, kind.upper(), bool(key) or name in unique))
    database.execute(
        f'INSERT OR IGNORE INTO "{table}" ({", ".join(names)}) '
        f"WITH RECURSIVE copies({_COPY}) AS "
        f"(SELECT 1 UNION ALL SELECT {_COPY} + 1 FROM copies WHERE {_COPY} < ?) "
        f'SELECT {", ".join(values)} FROM copies, (SELECT * FROM "{table}") WHERE ? > 0',
        (copies, copies),
    )


def _value_of(table: str, name: str, kind: str, is_unique: bool) -> str:
    """The expression of a copied column: another value where it identifies the donation."""
    if table == "drive_log" and name == "sequence":
        return f"sequence + {_COPY} * (SELECT max(sequence) FROM drive_log)"
    identifies = name not in _KEPT and (is_unique or name.endswith("_id") or name in _IDENTIFIERS)
    if not identifies or "INT" in kind:
        return f'"{name}"'
    if "BLOB" in kind:
        return f'CAST("{name}" || {_COPY} AS BLOB)'
    return f"\"{name}\" || '~' || {_COPY}"


def _unique_columns(database: sqlite3.Connection, table: str) -> Sequence[str]:
    found: list[str] = []
    for _, index, is_unique, *_ in database.execute(f'PRAGMA index_list("{table}")').fetchall():
        if is_unique:
            found += [row[2] for row in database.execute(f'PRAGMA index_info("{index}")') if row[2]]
    return found
