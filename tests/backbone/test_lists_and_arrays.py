"""Conditions with lists, and inserts of many rows, whose SQL text does not depend on how many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg

from backbone.database.array_forms import array_form, copied_table
from backbone.database.columns import BIGINT_KEY, Utc
from backbone.database.database import Database
from backbone.database.messaging_tables import messaging_tables
from backbone.database.one_of import one_of
from backbone.database.plans import Plans
from tests.backbone.both_stores import STORES, database_on

METADATA: Final = MetaData()
MESSAGING_TABLES: Final = messaging_tables(METADATA)
THINGS: Final = Table(
    "things",
    METADATA,
    Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
    Column("name", String, unique=True),
    Column("data", LargeBinary),
    Column("size", BigInteger),
    Column("flag", Boolean),
    Column("at", Utc),
    sqlite_autoincrement=True,
)
NAMES: Final = ("a", "", "l'été", '"quoted"', "{,}", "\\", "سارة", "NULL", "1")
ROWS: Final[list[dict[str, Any]]] = [
    {"name": name, "data": bytes([n, 0, 255]), "size": 2**60 + n} for n, name in enumerate(NAMES)
]
LISTS: Final[list[Sequence[str]]] = [(), ("a",), NAMES, NAMES[:3], ("a", "a", "nobody"), ("nobody",)]


@pytest.fixture(params=STORES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_on(request.param, tmp_path, METADATA, MESSAGING_TABLES) as database:
        yield database


async def test_one_of_finds_the_rows_with_one_of_the_values(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(THINGS), ROWS)
    by_each = {name: select(THINGS).where(one_of(THINGS.c[name], "wanted")) for name in ROWS[0]}
    by_any = select(THINGS.c.name).where(or_(one_of(THINGS.c.name, "names"), one_of(THINGS.c.size, "sizes")))
    for names in LISTS:
        wanted = [row for row in ROWS if row["name"] in names]
        async with database.reading() as session:
            for column, statement in by_each.items():
                found = await session.execute(statement, {"wanted": [row[column] for row in wanted]})
                assert {row.name for row in found} == {row["name"] for row in wanted}
            either = await session.execute(by_any, {"names": names, "sizes": [ROWS[0]["size"]]})
            assert {row.name for row in either} == {row["name"] for row in wanted} | {"a"}


async def test_one_of_refuses_a_missing_list(database: Database) -> None:
    statement = select(THINGS).where(one_of(THINGS.c.name, "wanted"))
    for _ in range(2):
        with pytest.raises(Exception, match="a list is required"):
            async with database.reading() as session:
                await session.execute(statement, {"wanted": None})


@pytest.mark.parametrize("dialect", [sqlite.dialect(), asyncpg.dialect()], ids=["sqlite", "postgresql"])
def test_statement_with_a_list_is_executed_by_the_driver(dialect: Any) -> None:
    plans, statement = Plans(), update(THINGS).where(one_of(THINGS.c.name, "wanted")).values(size=1)
    plans.find(statement, {"wanted": ["a"]}, dialect)
    plan = plans.find(statement, {"wanted": ["a"]}, dialect)
    assert plan is not None
    assert plan is plans.find(statement, {"wanted": ["a", "b", "c"]}, dialect)


async def test_insert_of_many_rows_returns_those_that_are_new_in_their_order(database: Database) -> None:
    new = (sqlite if database.is_sqlite else postgresql).insert(THINGS).on_conflict_do_nothing()
    statement = new.returning(THINGS.c.number, THINGS.c.name)
    for half in (ROWS[:4], ROWS, ROWS, [*ROWS[:2], {**ROWS[0], "name": "new"}]):
        async with database.transaction() as session:
            stored = set((await session.execute(select(THINGS.c.name))).all())
            made = (await session.execute(statement, half)).all()
        expected = [row["name"] for row in half if (row["name"],) not in stored]
        assert [row.name for row in sorted(made)] == expected


async def test_insert_of_many_rows_counts_those_that_are_new(database: Database) -> None:
    statement = (sqlite if database.is_sqlite else postgresql).insert(THINGS).on_conflict_do_nothing()
    counts = []
    for rows in (ROWS[:4], ROWS, ROWS):
        async with database.transaction() as session:
            counts.append((await session.execute(statement, rows)).rowcount)
    assert counts[0] in (4, -1)  # the first time, PostgreSQL's driver does not know it
    assert counts[1:] == [len(ROWS) - 4, 0]


def test_rows_are_copied_only_where_the_insert_does_nothing_else() -> None:
    def sql(statement: Any) -> str:
        compiled = statement.compile(dialect=asyncpg.dialect(), column_keys=["name", "flag"])
        return str(compiled).replace("\n", " ")

    plain = insert(THINGS).inline()
    assert copied_table(sql(plain)) == "things"
    for other in (
        postgresql.insert(THINGS).inline().on_conflict_do_nothing(),
        plain.returning(THINGS.c.number),
        insert(THINGS).from_select(["name"], select(THINGS.c.name)),
        insert(THINGS).inline().values(flag=literal_column("true")),
        update(THINGS),
    ):
        assert copied_table(sql(other)) is None


def test_array_form_exists_only_where_one_statement_does_the_same() -> None:
    def sql(statement: Any) -> str:
        names = ["name", "size"]
        return str(statement.compile(dialect=asyncpg.dialect(), column_keys=names, for_executemany=True))

    new = postgresql.insert(THINGS)
    assert array_form(sql(new.on_conflict_do_nothing())) == (
        "INSERT INTO things (name, size) SELECT p1, p2 FROM unnest($1::VARCHAR[], $2::BIGINT[]) "
        "WITH ORDINALITY AS given(p1, p2, place) ORDER BY place ON CONFLICT DO NOTHING"
    )
    replacing = new.on_conflict_do_update(index_elements=["name"], set_={"size": new.excluded.size})
    assert array_form(sql(replacing)) is None
    assert array_form(sql(update(THINGS))) is None
    assert array_form("INSERT INTO t (a) VALUES ($1::JSON) ON CONFLICT DO NOTHING") is None
    assert array_form("INSERT INTO t (a, b) VALUES ($1::BIGINT, now()) ON CONFLICT DO NOTHING") is None
