"""Rows found by pairs of values, many at once, through an index that begins with both columns.

Neither of the obvious statements can be trusted with a table that grows. `a IN (…) AND b IN (…)`
has PostgreSQL probe the index with every combination, or read the whole table where it takes these
for too many; `(a, b) IN (VALUES …)` has SQLite read the whole table. `a = x AND b IN (…)`, joined
by OR where there is more than one `x`, is answered from the index by both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import BindParameter, Column, ColumnElement, Connection, Row, Select, and_, bindparam, or_

MAX_GROUPS: Final = 50
"""How many values of the first column are looked for in one statement."""


class PairLookup:
    """Rows of `statement` whose `first` and `second` column are one of some pairs."""

    def __init__(self, statement: Select[Any], first: Column[Any], second: Column[Any]) -> None:
        self._statement = statement
        self._first = first
        self._second = second
        # By the number of groups: putting a statement together costs more than running it.
        self._statements: dict[int, Select[Any]] = {}

    def find(self, connection: Connection, pairs: Iterable[tuple[Any, Any]]) -> Iterator[Row[Any]]:
        """The rows of these pairs, in no particular order."""
        groups = list(grouped(pairs).items())
        for begin in range(0, len(groups), MAX_GROUPS):
            batch = groups[begin : begin + MAX_GROUPS]
            values: dict[str, Any] = {}
            for n, (first, seconds) in enumerate(batch):
                values |= {f"first_{n}": first, f"seconds_{n}": seconds}
            yield from connection.execute(self._statement_for(len(batch)), values)

    def _statement_for(self, groups: int) -> Select[Any]:
        made = self._statements.get(groups)
        if made is None:
            made = self._statements[groups] = self._statement.where(or_(*map(self._condition, range(groups))))
        return made

    def _condition(self, n: int) -> ColumnElement[bool]:
        seconds: BindParameter[Any] = bindparam(f"seconds_{n}", expanding=True)
        return and_(self._first == bindparam(f"first_{n}"), self._second.in_(seconds))


def grouped(pairs: Iterable[tuple[Any, Any]]) -> Mapping[Any, list[Any]]:
    """The second values by the first, each pair once, in order."""
    groups: dict[Any, list[Any]] = {}
    for first, second in sorted(set(pairs)):
        groups.setdefault(first, []).append(second)
    return groups
