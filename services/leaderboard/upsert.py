"""Multi-row `INSERT … ON CONFLICT` statements: whichever event comes first makes the row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

Insert = postgresql.Insert | sqlite.Insert


def insert_into(session: AsyncSession, table: Table) -> Insert:
    """An INSERT in the dialect of the session, which knows ON CONFLICT."""
    return _insert(session.get_bind().dialect.name, table)


def _insert(dialect: str, table: Table) -> Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def add_to(session: AsyncSession, table: Table, sums: Sequence[str]) -> Insert:
    """Adds the given `sums` to the row with the given key, or makes it with them."""
    return _add_to(session.get_bind().dialect.name, table, tuple(sums))


@lru_cache(maxsize=64)
def _add_to(dialect: str, table: Table, sums: tuple[str, ...]) -> Insert:
    statement = _insert(dialect, table)
    added = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=added)


def replace_in(session: AsyncSession, table: Table, values: Sequence[str]) -> Insert:
    """Gives the row with the given key these `values`, or makes it with them."""
    return _replace_in(session.get_bind().dialect.name, table, tuple(values))


@lru_cache(maxsize=64)
def _replace_in(dialect: str, table: Table, values: tuple[str, ...]) -> Insert:
    statement = _insert(dialect, table)
    new: dict[str, Any] = {name: statement.excluded[name] for name in values}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=new)
