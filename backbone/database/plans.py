"""Compiled statements that are executed by the driver itself.

Executing a SQLAlchemy statement costs about 40 µs on SQLite and 100 µs on PostgreSQL, where the driver needs
5 and 15 µs (docs/decisions/0012). A statement object that is executed again is therefore compiled once, with
the conversions of its parameters and columns, and from then on goes to the driver directly. Statements that
are built for each call, and those whose text depends on their parameters (`IN` with a list), stay with
SQLAlchemy. Both ways give the same rows and raise the same errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Numeric, Row, TextClause
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from backbone.database.array_forms import array_form, copied_table

Parameters = Mapping[str, Any]
AnyRow = Row[*tuple[Any, ...]]


class Tuples(NamedTuple):
    """Rows for an INSERT, at least one, with the values of `names` in their order.

    The values are what the driver takes: moments are in microseconds since 1970. A row costs a third of what
    it costs as a mapping.
    """

    names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


Mappings = Parameters | Sequence[Parameters] | None
Values = Mappings | Tuples
"""A statement's parameters; a list executes an INSERT, UPDATE or DELETE once for each of its members."""

_NO_PARAMETERS: Final[Sequence[Parameters]] = ({},)


def rows_of(parameters: Mappings) -> Sequence[Parameters]:
    """The parameters of each execution; one without any where there are none."""
    if parameters is None:
        return _NO_PARAMETERS
    return (parameters,) if isinstance(parameters, Mapping) else parameters


class Rows:
    """The rows that a statement returned, all of them fetched, and how many it changed.

    `rowcount` is -1 where the driver does not know it.
    """

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[AnyRow], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[AnyRow]:
        return iter(self._rows)

    def all(self) -> Sequence[AnyRow]:
        """Every row."""
        return self._rows

    def first(self) -> AnyRow | None:
        """The first row, if there is one."""
        return self._rows[0] if self._rows else None

    def one(self) -> AnyRow:
        """The only row. Raises ValueError where there is not exactly one."""
        if len(self._rows) != 1:
            raise ValueError(f"one row expected, {len(self._rows)} found")
        return self._rows[0]

    def scalar(self) -> Any:
        """The first column of the first row; None without a row."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """The first column of the only row. Raises ValueError where there is not exactly one."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """The first column of the only row; None without a row."""
        return self.one()[0] if self._rows else None


class Plan:
    """The text of a statement for the driver, and how its parameters and rows are converted."""

    __slots__ = (
        "_columns",
        "_conversions",
        "_converters",
        "_defaults",
        "_in_order",
        "_keys",
        "_names",
        "_rearranged",
        "_several_sql",
        "array_sql",
        "copied_table",
        "returns_rows",
        "sql",
    )

    def __init__(self, compiled: SQLCompiler, dialect: Dialect) -> None:
        self.sql = compiled.string
        is_postgres = dialect.name == "postgresql"
        self.array_sql = array_form(self.sql) if is_postgres else None
        self.copied_table = copied_table(self.sql) if is_postgres else None
        converters: Any = compiled._bind_processors
        self._names: Sequence[str] = compiled.positiontup or ()
        names = self._names
        self._defaults = {name: bind.value for bind, name in compiled.bind_names.items() if not bind.required}
        self._in_order = _getter(names)
        self._several_sql = ""
        self._rearranged: Callable[[Any], tuple[Any, ...]] | None = None
        self._conversions = [(n, converters[name]) for n, name in enumerate(names) if converters.get(name)]
        columns = compiled._result_columns
        self.returns_rows = bool(columns)
        self._columns = SimpleResultMetaData([column.keyname for column in columns])
        self._keys = self._columns._key_to_index
        found = [column.type._cached_result_processor(dialect, None) for column in columns]
        self._converters = found if any(found) else None

    def values(self, parameters: Parameters) -> list[Any]:
        """The parameters in the order of their places, as the driver takes them. Raises KeyError."""
        found = list(self._in_order({**self._defaults, **parameters} if self._defaults else parameters))
        for n, convert in self._conversions:
            found[n] = convert(found[n])
        return found

    def take_tuples_of(self, names: Sequence[str]) -> None:
        """Prepare for tuples of these names. Raises ValueError where the statement takes no such."""
        places = [names.index(name) for name in self._names]
        if self.returns_rows or sorted(places) != list(range(len(names))):
            raise ValueError(f"{names} are not {self._names}, or the statement returns rows")
        self._rearranged = None if places == sorted(places) else itemgetter(*places)

    def tuples(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """The rows in the order of their places."""
        return rows if self._rearranged is None else [self._rearranged(row) for row in rows]

    def several_sql(self, count: int) -> str:
        """The text for so many rows at once, on SQLite; always asked for with the same `count`."""
        if not self._several_sql:
            head, row, tail = _ROW.split(self.sql)
            self._several_sql = f"{head} VALUES {', '.join([row] * count)}{tail}"
        return self._several_sql

    def arrays(self, rows: Sequence[Parameters]) -> list[tuple[Any, ...]]:
        """The values of `array_sql`: those of all rows, for each place. Raises KeyError."""
        return list(zip(*map(self.values, rows), strict=True))

    def rows(self, records: Iterable[Sequence[Any]]) -> list[AnyRow]:
        """The driver's rows, converted."""
        columns, converters, keys = self._columns, self._converters, self._keys
        return [Row(columns, converters, keys, record) for record in records]


_ROW: Final = re.compile(r" VALUES (\([?, ]+\))")
_AS_TUPLES: Final = ""
"""No parameter is called that."""


class Plans:
    """The plans of a database's statements. They live as long as their statements."""

    def __init__(self) -> None:
        self._plans: WeakKeyDictionary[Any, dict[tuple[str, ...], Plan | None]] = WeakKeyDictionary()

    def of_tuples(self, statement: UpdateBase, names: tuple[str, ...], dialect: Dialect) -> Plan:
        """The plan for a statement with tuples of these names, from its first execution on.

        Raises ValueError where it has other parameters.
        """
        plans = self._plans.setdefault(statement, {})
        plan = plans.get((_AS_TUPLES, *names))
        if plan is None:
            plan = _compile(statement, names, dialect)
            if plan is None:
                raise ValueError("the statement cannot be executed by the driver alone")
            plan.take_tuples_of(names)
            plans[_AS_TUPLES, *names] = plan
        return plan

    def find(self, statement: Any, parameters: Parameters, dialect: Dialect) -> Plan | None:
        """The plan for a statement with parameters of these names; None where SQLAlchemy executes it."""
        plans = self._plans.get(statement)
        if plans is None:
            self._plans[statement] = {}
            return None  # it may be built anew for each call: then compiling it does not pay
        names = tuple(parameters) if isinstance(statement, UpdateBase) else ()
        if names not in plans:
            plans[names] = _compile(statement, names, dialect)
        return plans[names]


def _compile(statement: Any, names: Sequence[str], dialect: Dialect) -> Plan | None:
    compiled = statement.compile(dialect=dialect, column_keys=list(names) or None, for_executemany=True)
    if not isinstance(compiled, SQLCompiler) or not _is_fixed(compiled):
        return None
    return Plan(compiled, dialect)


def _is_fixed(compiled: SQLCompiler) -> bool:
    """Whether the text does not depend on the parameters, and SQLAlchemy adds no values of its own."""
    columns = compiled._result_columns
    names = [column.keyname for column in columns]
    return not (
        compiled.post_compile_params
        or compiled.literal_execute_params
        or compiled.insert_prefetch
        or compiled.update_prefetch
        or isinstance(compiled.statement, TextClause)  # its columns are not known
        or len(set(names)) < len(names)
        or any(isinstance(column.type, Numeric) for column in columns)  # converted by the driver's type
        or any(bind.callable is not None for bind in compiled.bind_names)
    )


def _getter(names: Sequence[str]) -> Callable[[Parameters], Iterable[Any]]:
    """Reads the values of these names, in order. Raises KeyError."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda parameters: [parameters[name] for name in names]
