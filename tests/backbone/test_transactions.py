"""Transactions: a statement gives the same rows and errors whether SQLAlchemy or the driver executes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import CompileError, IntegrityError, InvalidRequestError

from backbone.database.columns import Utc, microseconds
from backbone.database.database import Database
from backbone.database.messaging_tables import messaging_tables
from backbone.database.plans import Plans, Tuples
from backbone.database.transaction import after_commit
from backbone.database.transient import is_transient
from tests.engines import fresh_postgres

METADATA: Final = MetaData()
THINGS: Final = Table(
    "things",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String, unique=True),
    Column("big", BigInteger),
    Column("flag", Boolean),
    Column("data", LargeBinary),
    Column("doc", JSON),
    Column("at", Utc),
)
MESSAGING: Final = messaging_tables(METADATA)
NOON: Final = datetime(2022, 1, 7, 12, tzinfo=UTC)
ROW: Final[dict[str, Any]] = {
    "id": 1, "name": "سارة", "big": 2**62, "flag": True, "data": b"\0x", "doc": {"a": [1, None]}, "at": NOON,
}  # fmt: skip
TIMES: Final = 3
"""The first execution of a statement is SQLAlchemy's, the following ones are the driver's."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async for made in _prepared(f"sqlite:///{tmp_path / 'things.db'}"):
            yield made
    else:
        async with fresh_postgres() as url:
            async for made in _prepared(url):
                yield made


async def _prepared(url: str) -> AsyncIterator[Database]:
    database = Database(url, MESSAGING, pool_size=2)
    async with database.transaction() as session:
        await session.run_sync(lambda sync: METADATA.create_all(sync.connection))
    yield database
    await database.close()


def insert_new(database: Database) -> Any:
    return (sqlite if database.is_sqlite else postgresql).insert(THINGS).on_conflict_do_nothing()


async def all_things(database: Database) -> list[tuple[Any, ...]]:
    async with database.reading() as session:
        return [tuple(row) for row in await session.execute(select(THINGS).order_by(THINGS.c.id))]


async def test_repeated_statement_gives_equal_rows(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(THINGS), ROW)
    by_id = select(THINGS).where(THINGS.c.id == bindparam("wanted"), THINGS.c.flag.is_(True)).limit(5)
    found = []
    for _ in range(TIMES):
        async with database.reading() as session:
            found.append((await session.execute(by_id, {"wanted": 1})).one())
    assert [tuple(row) for row in found] == [tuple(ROW.values())] * TIMES
    assert [row._asdict() for row in found] == [ROW] * TIMES
    assert [(row.name, row.at, row.doc, row._mapping["big"]) for row in found] == [
        (ROW["name"], NOON, ROW["doc"], ROW["big"])
    ] * TIMES


async def test_repeated_changes_report_how_many_rows_they_changed(database: Database) -> None:
    adding, changing = insert(THINGS), update(THINGS).where(THINGS.c.id == bindparam("n")).values(big=7)
    removing = delete(THINGS).where(THINGS.c.id == bindparam("n"))
    for n in range(TIMES):
        async with database.transaction() as session:
            assert (await session.execute(adding, {"id": n, "name": str(n)})).rowcount == 1
            assert (await session.execute(changing, {"n": n})).rowcount == 1
            assert (await session.execute(changing, {"n": 99})).rowcount == 0
    for n in range(TIMES):
        async with database.transaction() as session:
            assert (await session.execute(removing, {"n": n})).rowcount == 1
    assert await all_things(database) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=2, max_size=4))
async def test_new_rows_of_a_batch_are_returned_once(database: Database, batches: list[list[int]]) -> None:
    async with database.transaction() as session:
        await session.execute(delete(THINGS))
    statement, known = insert_new(database).returning(THINGS.c.id), set[int]()
    for batch in batches:
        if not batch:
            continue
        async with database.transaction() as session:
            rows = [{"id": n, "name": f"n{n}"} for n in sorted(set(batch))]
            made = {row.id for row in await session.execute(statement, rows)}
        assert made == set(batch) - known
        known |= made


async def test_list_of_rows_without_returning_is_stored_whole(database: Database) -> None:
    statement = insert_new(database)
    for start in range(0, 9, 3):
        async with database.transaction() as session:
            await session.execute(statement, [{"id": n, "name": str(n)} for n in range(start, start + 3)])
    assert [row[0] for row in await all_things(database)] == list(range(9))


def tuple_of(number: int, *, name: str | None = None) -> tuple[Any, ...]:
    return number, microseconds(NOON), name or f"t{number}", b"\0x", True, 2**62


AS_TUPLES: Final = ("id", "at", "name", "data", "flag", "big")
"""Not in the order of the table's columns."""


@pytest.mark.parametrize("count", [1, 2, 300])
async def test_rows_as_tuples_are_stored_from_the_first_execution_on(database: Database, count: int) -> None:
    statement, counting = insert(THINGS), insert_new(database)
    rows = [tuple_of(n) for n in range(count)]
    async with database.transaction() as session:
        await session.execute(statement, Tuples(AS_TUPLES, rows))
        await session.run_sync(lambda sync: sync.execute(statement, Tuples(AS_TUPLES, [tuple_of(-1)])))
        again = await session.execute(counting, Tuples(AS_TUPLES, [*rows, tuple_of(1000)]))
        assert again.rowcount == 1
        assert (await session.execute(counting, Tuples(AS_TUPLES, rows[:1]))).rowcount == 0
    stored = [(n, f"t{n}", 2**62, True, b"\0x", None, NOON) for n in (-1, *range(count), 1000)]
    assert await all_things(database) == stored


async def test_error_of_tuples_is_an_integrity_error_and_rolls_back(database: Database) -> None:
    statement = insert(THINGS)
    for _ in range(TIMES):
        with pytest.raises(IntegrityError):
            async with database.transaction() as session:
                await session.execute(statement, Tuples(AS_TUPLES, [tuple_of(n, name="x") for n in (1, 2)]))
    assert await all_things(database) == []


async def test_tuples_for_a_statement_that_returns_rows_are_refused(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(ValueError, match="returns rows"):
            await session.execute(
                insert(THINGS).returning(THINGS.c.id), Tuples(AS_TUPLES, [tuple_of(1), tuple_of(2)])
            )


@pytest.mark.parametrize("names", [("id",), (*AS_TUPLES[:-1], "nobody"), (*AS_TUPLES, "id")])
async def test_tuples_of_other_names_than_the_parameters_are_refused(
    database: Database, names: tuple[str, ...]
) -> None:
    statement = insert(THINGS).values({name: bindparam(name) for name in AS_TUPLES})
    async with database.transaction() as session:
        with pytest.raises((ValueError, CompileError)):
            await session.execute(statement, Tuples(names, [(1,) * len(names)]))


async def test_error_of_a_repeated_statement_is_an_integrity_error_and_rolls_back(database: Database) -> None:
    statement = insert(THINGS)
    for n in range(TIMES):
        async with database.transaction() as session:
            await session.execute(statement, {"id": n, "name": str(n)})
        with pytest.raises(IntegrityError):
            async with database.transaction() as session:
                await session.execute(statement, {"id": 100 + n, "name": "more"})
                await session.execute(statement, {"id": n, "name": "again"})
    assert [row[0] for row in await all_things(database)] == list(range(TIMES))


async def test_parameter_that_is_missing_is_an_error_each_time(database: Database) -> None:
    statement = select(THINGS).where(THINGS.c.id == bindparam("wanted"))
    for _ in range(TIMES):
        with pytest.raises(Exception, match="wanted"):
            async with database.reading() as session:
                await session.execute(statement, {})


async def test_lists_aggregates_and_text_are_executed_each_time(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(insert(THINGS), [{"id": n, "name": str(n), "big": n} for n in range(4)])
    among = select(THINGS.c.id).where(THINGS.c.id.in_(bindparam("ids", expanding=True))).order_by(THINGS.c.id)
    total, plain = select(func.sum(THINGS.c.big)), text("SELECT count(*) AS n FROM things")
    for _ in range(TIMES):
        async with database.reading() as session:
            assert [row.id for row in await session.execute(among, {"ids": [1, 3, 9]})] == [1, 3]
            assert int((await session.execute(total)).scalar_one()) == 6
            assert (await session.execute(plain)).one().n == 4


async def test_statements_within_run_sync_see_the_transaction(database: Database) -> None:
    adding, reading = insert(THINGS), select(THINGS.c.name).where(THINGS.c.id == bindparam("n"))
    for n in range(TIMES):
        async with database.transaction() as session:
            await session.execute(adding, {"id": n, "name": str(n)})
            name = await session.run_sync(lambda sync, n: sync.execute(reading, {"n": n}).scalar_one(), n)
        assert name == str(n)


async def test_cancelled_transaction_changes_nothing_and_its_connection_is_not_used_again(
    database: Database,
) -> None:
    began = asyncio.Event()

    async def hang() -> None:
        async with database.transaction() as session:
            await session.execute(insert(THINGS), {"id": 1, "name": "lost"})
            began.set()
            await asyncio.Event().wait()

    for _ in range(TIMES):  # more often than there are connections
        task = asyncio.create_task(hang())
        await began.wait()
        began.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with database.transaction() as session:
        await session.execute(insert(THINGS), {"id": 2, "name": "kept"})
    assert [row[0] for row in await all_things(database)] == [2]


async def test_ended_transaction_refuses_statements(database: Database) -> None:
    """Its connection may run another transaction by then."""
    statement = insert(THINGS)
    async with database.transaction() as first:
        await first.execute(statement, {"id": 1, "name": "stored"})
        sync = await first.run_sync(lambda sync: sync)
    async with database.transaction() as second:
        await second.execute(statement, {"id": 2, "name": "stored too"})
        for ended in (first.execute, lambda *given: first.run_sync(lambda sync: sync.execute(*given))):
            with pytest.raises(InvalidRequestError):
                await ended(statement, {"id": 3, "name": "late"})
        with pytest.raises(InvalidRequestError):
            sync.execute(statement, {"id": 4, "name": "late"})
    assert [row[0] for row in await all_things(database)] == [1, 2]


async def test_commit_after_a_statement_that_failed_is_no_silent_rollback(database: Database) -> None:
    """PostgreSQL answers such a COMMIT with a rollback and no error; SQLite undoes the statement only."""
    committed = []

    async def swallow() -> None:
        async with database.transaction() as session:
            await session.execute(insert(THINGS), {"id": 1, "name": "first"})
            after_commit(session, lambda: committed.append(1))
            with suppress(IntegrityError):
                await session.execute(insert(THINGS), {"id": 1, "name": "again"})

    if database.is_sqlite:
        await swallow()
        assert (len(await all_things(database)), committed) == (1, [1])
    else:
        with pytest.raises(InvalidRequestError, match="rolled back"):
            await swallow()
        assert (await all_things(database), committed) == ([], [])


async def test_repeated_statement_survives_a_change_of_its_columns(database: Database) -> None:
    """A newer version of a service migrates while this one runs."""
    reading = select(THINGS.c.id, THINGS.c.big).order_by(THINGS.c.id)
    async with database.transaction() as session:
        await session.execute(insert(THINGS), {"id": 1, "name": "a", "big": 5})
    for _ in range(TIMES):
        async with database.reading() as session:
            await session.execute(reading)
    change = "ADD COLUMN more INTEGER" if database.is_sqlite else "ALTER COLUMN big TYPE text"
    async with database.transaction() as session:
        await session.execute(text(f"ALTER TABLE things {change}"))
    found: list[Any] = []
    errors: list[Exception] = []
    for _ in range(TIMES):
        try:
            async with database.reading() as session:
                row = (await session.execute(reading)).one()
            found.append((row.id, int(row.big)))
        except Exception as error:
            errors.append(error)
    assert all(map(is_transient, errors)), errors
    assert found == [(1, 5)] * (TIMES - len(errors))
    assert len(errors) <= 1


def test_plan_is_dropped_with_its_statement() -> None:
    plans, dialect = Plans(), sqlite.dialect()
    statement = select(THINGS)
    assert plans.find(statement, {}, dialect) is None  # the first time
    assert plans.find(statement, {}, dialect) is not None
    assert len(plans._plans) == 1
    del statement
    assert len(plans._plans) == 0
