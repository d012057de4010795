"""Every class of database error, raised by real stores, and its handling by group commit and consumers."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, text
from sqlalchemy.exc import IntegrityError

from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.database.transient import TransientFailure, is_transient, transient_failure
from backbone.group_commit import RETRY_FOR_S, GroupCommit
from backbone.http.service_client import InProcessServiceClient
from backbone.messaging.consumer import MAX_ATTEMPTS, Consumer
from backbone.messaging.outbox import Relay
from backbone.service import new_app
from tests.backbone.notes import Note, Noted, noted, open_database, sqlite_url, take_notes
from tests.engines import fresh_postgres
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(sqlite_url(tmp_path)) as opened:
            yield opened
    else:
        async with fresh_postgres() as url, open_database(url) as opened:
            yield opened


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(sqlite_url(tmp_path)) as opened:
        yield opened


@pytest.fixture
async def postgres() -> AsyncIterator[Database]:
    async with fresh_postgres() as url, open_database(url) as opened:
        yield opened


async def note(session: Transaction, text_: object, **more: object) -> None:
    await session.execute(insert(Note), [{"about": "k", "text": text_, **more}])


async def error_of(database: Database, *statements: str) -> Exception:
    with pytest.raises(Exception) as failed:  # noqa: PT011 (which one it is, is what is asked)
        async with database.transaction() as session:
            for statement in statements:
                await session.execute(text(statement))
    return failed.value


NEW_NOTE = "INSERT INTO notes (about, text) VALUES ('k', 'new')"


def raising(state: str) -> str:
    """A PostgreSQL statement that fails with this SQLSTATE."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["SET LOCAL statement_timeout = 50", "SELECT pg_sleep(30)"], TransientFailure.SLOW),
        (["SET TRANSACTION READ ONLY", NEW_NOTE], TransientFailure.READ_ONLY),
        (["SELECT pg_terminate_backend(pg_backend_pid())"], TransientFailure.UNAVAILABLE),
        (["SELECT pg_cancel_backend(pg_backend_pid())"], TransientFailure.SLOW),
        ([raising("53100")], TransientFailure.FULL),
        ([raising("53300")], TransientFailure.UNAVAILABLE),
        ([raising("40001")], TransientFailure.BUSY),
        ([raising("55P03")], TransientFailure.BUSY),
        ([raising("40002")], None),
        ([raising("55000")], None),
        ([raising("P0001")], None),
        ([raising("54000")], None),
    ],
    ids=lambda given: given[-1][:60] if isinstance(given, list) else None,
)
async def test_postgresql_error_is_classified_by_its_sqlstate(
    postgres: Database, statements: list[str], expected: TransientFailure | None
) -> None:
    error = await error_of(postgres, *statements)
    assert transient_failure(error) is expected
    assert is_transient(error) is (expected is not None)


@pytest.mark.parametrize("value", ["\x00", "x\x00y", None, 7])
async def test_value_that_postgresql_cannot_store_is_permanent(postgres: Database, value: object) -> None:
    with pytest.raises(Exception) as failed:  # noqa: PT011
        async with postgres.transaction() as session:
            await note(session, value)
    assert not is_transient(failed.value)


async def test_serialization_failure_is_busy(postgres: Database) -> None:
    await error_of(postgres, NEW_NOTE, "SELECT 1 / 0")
    async with postgres.transaction() as session:
        await note(session, "a")
    with pytest.raises(Exception) as failed:  # noqa: PT011
        async with postgres.transaction() as session:
            await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await session.execute(text("SELECT count(*) FROM notes"))
            async with postgres.transaction() as other:
                await other.execute(text("UPDATE notes SET about = 'other'"))
            await session.execute(text("UPDATE notes SET about = 'this'"))
    assert transient_failure(failed.value) is TransientFailure.BUSY


async def test_connection_to_a_read_only_server_is_replaced(postgres: Database) -> None:
    async def server_process() -> int:
        async with postgres.transaction() as session:
            return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())

    before = await server_process()
    await error_of(postgres, "SET TRANSACTION READ ONLY", NEW_NOTE)
    assert await server_process() != before


@pytest.mark.parametrize(
    "statements",
    [
        ["INSERT INTO notes (id, about, text) VALUES (1, 'k', 'a'), (1, 'k', 'b')"],
        ["INSERT INTO nowhere VALUES (1)"],
        ["INSERT INTO notes (about, text) VALUES ('k', NULL)"],
    ],
    ids=["unique", "no table", "null"],
)
async def test_errors_of_the_data_are_permanent_on_both_stores(
    database: Database, statements: list[str]
) -> None:
    error = await error_of(database, *statements)
    assert transient_failure(error) is None
    assert not is_transient(error)


async def full(sqlite: Database) -> None:
    """Prevent the file from growing, on the writing connection."""
    async with sqlite.transaction() as session:
        await session.execute(text("PRAGMA max_page_count = 1"))


async def make_space(sqlite: Database) -> None:
    async with sqlite.transaction() as session:
        await session.execute(text("PRAGMA max_page_count = 100000"))


async def test_full_sqlite_file_is_transient(sqlite: Database) -> None:
    await full(sqlite)
    with pytest.raises(Exception) as failed:  # noqa: PT011
        async with sqlite.transaction() as session:
            await note(session, "x" * 100_000)
    assert transient_failure(failed.value) is TransientFailure.FULL
    await make_space(sqlite)
    async with sqlite.transaction() as session:
        await note(session, "x" * 100_000)


async def test_read_only_sqlite_file_is_transient(sqlite: Database) -> None:
    async with sqlite.transaction() as session:
        await session.execute(text("PRAGMA query_only = ON"))
    error = await error_of(sqlite, NEW_NOTE)
    assert transient_failure(error) is TransientFailure.READ_ONLY


async def test_locked_sqlite_file_is_transient(sqlite: Database, tmp_path: Path) -> None:
    other = create_engine(sqlite_url(tmp_path))
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        error = await error_of(sqlite, NEW_NOTE)
    other.dispose()
    assert transient_failure(error) is TransientFailure.BUSY


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 503),
        (OSError(errno.ENOSPC, "no space"), 503),
        (FileNotFoundError(errno.ENOENT, "no such file"), 500),
        (PermissionError(errno.EACCES, "not allowed"), 500),
    ],
    ids=["refused", "disk full", "no file", "not allowed"],
)
async def test_operating_system_error_is_not_reported_as_a_database_error(
    error: OSError, status: int
) -> None:
    async def fail() -> None:
        raise error

    app = new_app("notes", "secret")
    app.add_api_route("/fail", fail)
    reply = await InProcessServiceClient(app).request("GET", "/fail", headers={})
    assert reply.status == status
    assert b"database" not in reply.body
    assert is_transient(error) is (status == 503)


# Their handling.


@dataclass
class Fault:
    """Fails the first `times` attempts with the error of `statement`; records the size of each batch."""

    statement: str
    times: int
    tries: list[int]

    async def strike(self, session: Transaction, size: int) -> None:
        self.tries.append(size)
        if len(self.tries) <= self.times:
            await session.execute(text(self.statement))


PASSING = [
    raising("40P01"),
    raising("40001"),
    raising("53100"),
    "SELECT pg_terminate_backend(pg_backend_pid())",
]
NAMES = ["deadlock", "serialization", "disk full", "cut"]


def committing(database: Database, fault: Fault) -> Callable[[Sequence[str]], Awaitable[list[str]]]:
    async def commit(texts: Sequence[str]) -> list[str]:
        async with database.transaction() as session:
            await fault.strike(session, len(texts))
            await session.execute(
                insert(Note), [{"about": "k", "text": None if one == "bad" else one} for one in texts]
            )
        return list(texts)

    return commit


@pytest.mark.parametrize("statement", PASSING, ids=NAMES)
async def test_group_commit_retries_a_batch_as_a_whole(postgres: Database, statement: str) -> None:
    fault = Fault(statement, 2, [])
    group: GroupCommit[str, str] = GroupCommit(committing(postgres, fault))
    texts = [str(number) for number in range(20)]
    assert await asyncio.gather(*map(group.submit, texts)) == texts
    assert fault.tries == [20, 20, 20]
    assert len(await noted(postgres)) == 20


async def test_group_commit_fails_on_a_lasting_transient_error_and_recovers_after_it(
    postgres: Database,
) -> None:
    fault = Fault(raising("53100"), 10**6, [])
    group: GroupCommit[str, str] = GroupCommit(committing(postgres, fault))
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*map(group.submit, "abc"), return_exceptions=True)
    assert asyncio.get_running_loop().time() - began < RETRY_FOR_S + 5.0
    assert [transient_failure(answer) for answer in answers if isinstance(answer, Exception)] == [
        TransientFailure.FULL
    ] * 3
    assert set(fault.tries) == {3}
    fault.times = 0
    assert await group.submit("after") == "after"


async def test_group_commit_bisects_on_a_permanent_error_and_one_request_fails(
    database: Database,
) -> None:
    group: GroupCommit[str, str] = GroupCommit(committing(database, Fault("", 0, [])))
    texts = [str(number) for number in range(20)]
    texts[7] = "bad"
    answers = await asyncio.gather(*map(group.submit, texts), return_exceptions=True)
    assert isinstance(answers[7], IntegrityError)
    assert sorted(text_ for _, text_ in await noted(database)) == sorted(one for one in texts if one != "bad")


async def test_group_commit_on_a_full_sqlite_file_waits_for_space(sqlite: Database) -> None:
    await full(sqlite)
    group: GroupCommit[str, str] = GroupCommit(committing(sqlite, Fault("", 0, [])))
    waiting = asyncio.gather(*(group.submit("x" * 50_000) for _ in range(4)))
    await asyncio.sleep(0.1)
    await make_space(sqlite)
    assert len(await waiting) == 4


async def consume(database: Database, folder: Path, texts: Sequence[str], handle: Any) -> list[bytes]:
    """Handle `texts` until each is noted or a dead letter; return the dead letters."""
    bus = SqliteBus(folder / "bus.db")
    letters = await bus.follow(["notes.dead-letter"], "beginning")
    messages = [Noted(about="k", text=one).to_bytes() for one in texts]
    await bus.publish(
        [Message("notes", "k", f"evt_{n}", Noted.wire_name, value) for n, value in enumerate(messages)]
    )
    consumer = Consumer("notes", bus, ["notes"], {Noted: handle}, database)
    relay = Relay("notes", database, bus, [])
    stop = asyncio.Event()
    tasks = [asyncio.create_task(each.run(stop)) for each in (consumer, relay)]

    async def done() -> bool:
        return await consumer.behind() == 0 and await relay.is_empty()

    await until(done)
    stop.set()
    await asyncio.gather(*tasks)
    found = [record.value for record in await letters.fetch(100, 0.1) if record.name]
    await bus.close()
    return found


def striking(fault: Fault) -> Callable[[Sequence[Noted], Transaction], Awaitable[None]]:
    async def handle(events: Sequence[Noted], session: Transaction) -> None:
        await fault.strike(session, len(events))
        await take_notes(events, session)

    return handle


@pytest.mark.parametrize("statement", PASSING, ids=NAMES)
async def test_consumer_retries_a_batch_as_a_whole_without_limit(
    postgres: Database, tmp_path: Path, statement: str
) -> None:
    fault = Fault(statement, MAX_ATTEMPTS + 2, [])
    texts = [str(number) for number in range(12)]
    assert await consume(postgres, tmp_path, texts, striking(fault)) == []
    assert fault.tries == [12] * (MAX_ATTEMPTS + 3)
    assert [one for _, one in await noted(postgres)] == texts


async def test_consumer_bisects_a_batch_that_times_out_and_loses_no_event(
    postgres: Database, tmp_path: Path
) -> None:
    async def slow_as_a_whole(events: Sequence[Noted], session: Transaction) -> None:
        if len(events) > 3:
            await session.execute(text("SET LOCAL statement_timeout = 20"))
            await session.execute(text("SELECT pg_sleep(30)"))
        await take_notes(events, session)

    texts = [str(number) for number in range(12)]
    assert await consume(postgres, tmp_path, texts, slow_as_a_whole) == []
    assert [one for _, one in await noted(postgres)] == texts


async def test_consumer_dead_letters_only_the_event_with_a_permanent_error(
    database: Database, tmp_path: Path
) -> None:
    async def refuse(events: Sequence[Noted], session: Transaction) -> None:
        rows = [
            {"about": event.about, "text": None if event.text == "bad" else event.text} for event in events
        ]
        await session.execute(insert(Note), rows)

    texts = ["a", "b", "bad", "c", "d"]
    (letter,) = await consume(database, tmp_path, texts, refuse)
    assert b"IntegrityError" in letter
    assert [one for _, one in await noted(database)] == ["a", "b", "c", "d"]


async def test_consumer_on_a_full_sqlite_file_waits_for_space(sqlite: Database, tmp_path: Path) -> None:
    await full(sqlite)
    fault = Fault("", 0, [])
    texts = [str(number) * 20_000 for number in range(4)]
    consuming = asyncio.create_task(consume(sqlite, tmp_path, texts, striking(fault)))
    await until(lambda: len(fault.tries) > MAX_ATTEMPTS)
    await make_space(sqlite)
    assert await consuming == []
    assert [one for _, one in await noted(sqlite)] == texts
    assert set(fault.tries) == {4}
