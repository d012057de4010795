"""Stripe's pagination: newest first; `starting_after`, `ending_before`, `limit`, and `created` filters."""

from __future__ import annotations

from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.errors import invalid, not_found
from sandbox.journal import Journal

COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
Clause = tuple[str, tuple[Any, ...]]


def limit_of(params: dict[str, Any]) -> int:
    """The page size: 1 to 100, 10 by default. Raises ApiError (400) for others."""
    limit = forms.integer(params, "limit")
    if limit is None:
        return 10
    if not 1 <= limit <= 100:
        raise invalid("This value must be between 1 and 100.", "limit", "parameter_invalid_integer")
    return limit


def created_clauses(params: dict[str, Any]) -> list[Clause]:
    """The `created` filter: an exact second, or a range."""
    wanted = params.get("created")
    if wanted is None:
        return []
    if not isinstance(wanted, dict):
        return [("created = ?", (forms.integer(params, "created"),))]
    unknown = wanted.keys() - COMPARISONS.keys()
    if unknown:
        name = f"created[{min(unknown)}]"
        raise invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")
    return [(f"created {COMPARISONS[name]} ?", (forms.integer(wanted, name, "created"),)) for name in wanted]


def cursor(journal: Journal, table: str, params: dict[str, Any]) -> tuple[int | None, int | None]:
    """The row numbers of `starting_after` and `ending_before`. Raises ApiError for unknown ids."""
    found: list[int | None] = []
    for name in ("starting_after", "ending_before"):
        given = forms.text(params, name)
        row = journal.row(f"SELECT n FROM {table} WHERE id = ?", (given,)) if given else None
        if given and row is None:
            raise not_found(table[:-1], given, name, 400)
        found.append(row[0] if row else None)
    if None not in found:
        raise invalid("You cannot parameterize both starting_after and ending_before.", "ending_before")
    return found[0], found[1]


def page_of(
    account: Account,
    table: str,
    params: dict[str, Any],
    clauses: list[Clause],
    columns: str = "*",
    by_number: bool = False,
) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of one page, newest first, and whether there are more beyond it.

    `by_number` is for clauses that name rows by number: SQLite then walks those and sorts nothing.
    """
    limit = limit_of(params)
    after, before = cursor(account.journal, table, params)
    clauses = [*clauses, *created_clauses(params)]
    if after is not None:
        clauses.append(("n < ?", (after,)))
    if before is not None:
        clauses.append(("n > ?", (before,)))
    where = " AND ".join(clause for clause, _ in clauses) or "1"
    values = tuple(value for _, each in clauses for value in each)
    direction = "ASC" if before is not None else "DESC"
    order = f"n {direction}" if by_number else f"created {direction}, n {direction}"
    sql = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order} LIMIT {limit + 1}"
    rows = account.journal.rows(sql, values)
    has_more = len(rows) > limit
    rows = rows[:limit]
    return (rows[::-1] if before is not None else rows), has_more
