"""Lookup of many rows by pairs of values, through an index that begins with both columns.

The two obvious statements can scan a growing table. `a IN (…) AND b IN (…)` makes PostgreSQL probe the
index with every combination, or scan the table where there are too many; `(a, b) IN (VALUES …)` makes SQLite
scan the table. `a = x AND b IN (…)`, joined by OR for each `x`, uses the index on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Row, Select, and_, bindparam, or_

from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction

MAX_GROUPS: Final = 50
"""The most values of the first column in one statement."""


class PairLookup:
    """Finds rows of `statement` by pairs of values of the columns `first` and `second`."""

    def __init__(self, statement: Select[Any], first: Column[Any], second: Column[Any]) -> None:
        self._statement = statement
        self._first = first
        self._second = second
        # By number of groups: building a statement costs more than executing it.
        self._statements: dict[int, Select[Any]] = {}

    def find(self, transaction: SyncTransaction, pairs: Iterable[tuple[Any, Any]]) -> Iterator[Row[Any]]:
        """The rows with these pairs, in no particular order."""
        groups = list(grouped(pairs).items())
        for begin in range(0, len(groups), MAX_GROUPS):
            batch = groups[begin : begin + MAX_GROUPS]
            values: dict[str, Any] = {}
            for n, (first, seconds) in enumerate(batch):
                values |= {f"first_{n}": first, f"seconds_{n}": seconds}
            yield from transaction.execute(self._statement_for(len(batch)), values)

    def _statement_for(self, groups: int) -> Select[Any]:
        made = self._statements.get(groups)
        if made is None:
            made = self._statements[groups] = self._statement.where(or_(*map(self._condition, range(groups))))
        return made

    def _condition(self, n: int) -> ColumnElement[bool]:
        return and_(self._first == bindparam(f"first_{n}"), one_of(self._second, f"seconds_{n}"))


def grouped(pairs: Iterable[tuple[Any, Any]]) -> Mapping[Any, list[Any]]:
    """The second values by first value, without repetition, in order."""
    groups: dict[Any, list[Any]] = {}
    for first, second in sorted(set(pairs)):
        groups.setdefault(first, []).append(second)
    return groups
