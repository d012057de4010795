"""Inserts of many rows on PostgreSQL: arrays as parameters of one statement, and `COPY`.

The driver's `executemany` does not tell which rows were inserted, nor how many. For other statements it costs
less than arrays (docs/decisions/0019).
"""

from __future__ import annotations

import re
from typing import Final

_PLACE: Final = re.compile(r"\$(\d+)::(VARCHAR|BIGINT|INTEGER|BOOLEAN|BYTEA)\b(?!\[)")
_PLAIN: Final = re.compile(r"INSERT INTO (\w+) \([\w\", ]+\) VALUES \((?:\$\d+::\w+(?:, )?)+\)")
_VALUES: Final = re.compile(r" VALUES \(((?:\$\d+::\w+(?:, )?)+)\) ON CONFLICT DO NOTHING")


def array_form(sql: str) -> str | None:
    """The text that inserts arrays of values where `sql` inserts one value each; None for other statements.

    `sql` is PostgreSQL's, with a cast at each parameter. The rows get their numbers in their order.
    """
    values = _VALUES.search(sql)
    if values is None or sql.count("$") != len(places := _PLACE.findall(values[1])):
        return None
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in places)
    columns = ", ".join(f"p{number}" for number, _ in places)
    rows = f"SELECT {columns} FROM unnest({arrays}) WITH ORDINALITY AS given({columns}, place) ORDER BY place"
    return f"{sql[: values.start()]} {rows} ON CONFLICT DO NOTHING{sql[values.end() :]}"


def copied_table(sql: str) -> str | None:
    """The table whose rows `COPY` writes as `sql` does: an INSERT that does nothing else. None for others."""
    plain = _PLAIN.fullmatch(sql)
    return None if plain is None else plain[1]
