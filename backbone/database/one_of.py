"""A condition with a list of any length whose SQL text is always the same.

The text of SQLAlchemy's `column.in_(values)` depends on the number of values, so such a statement is compiled
again for each length and never gets a plan (`plans.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, LargeBinary, String, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine


def one_of(column: Column[Any], parameter: str) -> ColumnElement[bool]:
    """Whether `column` (of texts, whole numbers or bytes) has one of the values in the parameter."""
    return _OneOf(column, bindparam(parameter, type_=_List(column.type)))


FROM_HEX: Final = "from_hex"
"""A function of our connections to SQLite, which has none (`unhex` came with 3.41); JSON carries no bytes."""


class _List(TypeDecorator[Any]):
    """An array on PostgreSQL, JSON on SQLite."""

    impl = String
    cache_ok = True

    def __init__(self, member: TypeEngine[Any]) -> None:
        self.member = member
        super().__init__()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return postgresql.ARRAY(self.member) if dialect.name == "postgresql" else String()

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> Any:
        if value is None:
            raise ValueError("a list is required")
        if dialect.name == "postgresql":
            return list(value)
        if isinstance(self.member, LargeBinary):
            value = [each.hex() for each in value]
        return json.dumps(list(value))


class _OneOf(FunctionElement[bool]):
    # No Boolean: SQLAlchemy compares a Boolean function with 1 on SQLite, which then uses no index.
    type: Any = NullType()
    inherit_cache = True


@compiles(_OneOf, "postgresql")
def _in_array(element: _OneOf, compiler: SQLCompiler, **keywords: Any) -> str:
    column, values = (compiler.process(each, **keywords) for each in element.clauses)
    return f"{column} = ANY ({values})"


@compiles(_OneOf, "sqlite")
def _in_json(element: _OneOf, compiler: SQLCompiler, **keywords: Any) -> str:
    column, values = (compiler.process(each, **keywords) for each in element.clauses)
    member: TypeEngine[Any] = next(iter(element.clauses)).type
    value = f"{FROM_HEX}(value)" if isinstance(member, LargeBinary) else "value"
    return f"{column} IN (SELECT {value} FROM json_each({values}))"
