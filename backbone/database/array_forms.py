"""One statement for many rows on PostgreSQL: their values are passed as arrays, one for each parameter.

The driver's `executemany` runs a statement once for each row: with ten rows that costs PostgreSQL about twice
the CPU of one statement with arrays.
"""

from __future__ import annotations

import re
from typing import Any, Final

DISTINCT_ROWS: Final = "distinct_rows"

_PLACE: Final = re.compile(r"\$(\d+)::(VARCHAR|BIGINT|INTEGER|BOOLEAN|BYTEA)\b(?!\[)")
_ANY_PLACE: Final = re.compile(r"\$\d+")
_VALUES: Final = re.compile(r" VALUES \(((?:\$\d+::\w+(?:, )?)+)\)")


def distinct_rows(statement: Any) -> Any:
    """An UPDATE or upsert whose parameters never name the same row twice when it is executed with many.

    `executemany` would apply one change after the other; a statement with arrays applies one, or fails.
    """
    return statement.execution_options(**{DISTINCT_ROWS: True})


def array_form(sql: str, *, distinct: bool) -> str | None:
    """The text that does for arrays of values what `sql` does for one value each; None where there is none.

    `sql` is PostgreSQL's, with a cast at each parameter. `distinct`: see `distinct_rows`.
    """
    places = _PLACE.findall(sql)
    if not places or len(places) != len(_ANY_PLACE.findall(sql)):
        return None
    if sql.startswith("INSERT INTO ") and (distinct or " DO UPDATE " not in sql):
        return _insert(sql, places)
    if sql.startswith("UPDATE ") and distinct and sql.count(" WHERE ") == 1:
        return _PLACE.sub(r"given.p\1", sql).replace(" WHERE ", f" FROM {_given(places)} WHERE ")
    return None


def _insert(sql: str, places: list[tuple[str, str]]) -> str | None:
    values = _VALUES.search(sql)
    if values is None or len(_PLACE.findall(values[1])) != len(places):
        return None
    # In the order of the rows: they get their numbers in it.
    chosen = ", ".join(f"p{number}" for number, _ in places)
    rows = f" SELECT {chosen} FROM {_given(places, ' WITH ORDINALITY', ', place')} ORDER BY place"
    return sql[: values.start()] + rows + sql[values.end() :]


def _given(places: list[tuple[str, str]], with_ordinality: str = "", place: str = "") -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in places)
    columns = ", ".join(f"p{number}" for number, _ in places)
    return f"unnest({arrays}){with_ordinality} AS given({columns}{place})"
