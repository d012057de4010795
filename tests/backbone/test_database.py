"""The behaviour of `Database`, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import DBAPIError

from backbone.bus.protocol import Partition, Record
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction, after_commit
from backbone.messaging.inbox import Fenced, advance, record_new
from tests.backbone.notes import MESSAGING_TABLES, Note, noted, open_database, sqlite_url
from tests.engines import fresh_postgres
from tests.waiting import PATIENCE_S


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
    else:
        async with fresh_postgres() as fresh:
            yield fresh


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url) as opened:
        yield opened


async def note(database: Database, text: str) -> None:
    async with database.transaction() as session:
        await session.execute(insert(Note), [{"about": "k", "text": text}])


async def test_transaction_commits_at_its_end_and_rolls_back_on_an_exception(database: Database) -> None:
    await note(database, "kept")
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            await session.execute(insert(Note), [{"about": "k", "text": "undone"}])
            raise RuntimeError
    assert await noted(database) == [("k", "kept")]


async def test_concurrent_writers_all_commit(database: Database) -> None:
    await asyncio.gather(*(note(database, str(n)) for n in range(100)))
    assert {text for _, text in await noted(database)} == {str(n) for n in range(100)}


async def test_readers_and_writers_do_not_block_each_other(database: Database) -> None:
    await note(database, "before")
    async with database.transaction() as session:
        await session.execute(insert(Note), [{"about": "k", "text": "during"}])
        async with asyncio.timeout(PATIENCE_S):
            assert await noted(database) == [("k", "before")]
    assert [text for _, text in await noted(database)] == ["before", "during"]


async def test_statements_of_a_read_transaction_see_one_snapshot(database: Database) -> None:
    async with database.reading() as session:
        before = (await session.execute(select(func.count()).select_from(Note))).scalar_one()
        await note(database, "meanwhile")
        after = (await session.execute(select(func.count()).select_from(Note))).scalar_one()
    assert (before, after) == (0, 0)
    assert len(await noted(database)) == 1


async def test_a_read_of_whole_tables_sees_one_snapshot_and_holds_nobody_up(database: Database) -> None:
    """On SQLite the event loop goes on during a statement; on PostgreSQL during each wait for the server."""
    await note(database, "before")
    loop = asyncio.get_running_loop()

    def read(transaction: SyncTransaction) -> list[int]:
        counted = [count(transaction)]
        if database.is_sqlite:
            asyncio.run_coroutine_threadsafe(note(database, "meanwhile"), loop).result(PATIENCE_S)
        return [*counted, count(transaction)]

    def count(transaction: SyncTransaction) -> int:
        return int(transaction.execute(select(func.count()).select_from(Note)).scalar_one())

    assert await database.read_whole(read) == [1, 1]
    assert await database.read_whole(count) == (2 if database.is_sqlite else 1)


async def test_a_read_of_whole_tables_cannot_write_and_raises_what_it_raises(database: Database) -> None:
    def write(transaction: SyncTransaction) -> None:
        transaction.execute(insert(Note), [{"about": "k", "text": "never"}])
        raise RuntimeError("in the reader")

    with pytest.raises((RuntimeError, DBAPIError)):
        await database.read_whole(write)
    assert await noted(database) == []


async def test_cancelled_writer_releases_its_lock(database: Database) -> None:
    async def stall() -> None:
        async with database.transaction():
            await asyncio.Event().wait()

    task = asyncio.create_task(stall())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        await note(database, "after")


async def test_callbacks_run_after_a_commit_and_not_after_a_rollback(database: Database) -> None:
    seen: list[str] = []
    async with database.transaction() as session:
        after_commit(session, lambda: seen.append("committed"))
        assert seen == []
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            after_commit(session, lambda: seen.append("never"))
            raise RuntimeError
    assert seen == ["committed"]


async def test_inbox_records_an_event_once_per_group(database: Database) -> None:
    records = [Record(Partition("notes", 1), n, "k", f"evt_{n % 3}", "x", b"") for n in range(6)]
    async with database.transaction() as session:
        assert [record.id for record in await record_new(session, "notes", records)] == [
            "evt_0",
            "evt_1",
            "evt_2",
        ]
    async with database.transaction() as session:
        assert await record_new(session, "notes", records) == []
        assert len(await record_new(session, "others", records)) == 3


async def test_position_advances_only_from_the_expected_offset(database: Database) -> None:
    partition = Partition("notes", 1)
    first, second = (Record(partition, n, "k", f"evt_{n}", "x", b"") for n in (0, 1))
    async with database.transaction() as session:
        await advance(session, "notes", [first], {partition: 0})
    with pytest.raises(Fenced):
        async with database.transaction() as session:
            await advance(session, "notes", [first], {partition: 0})
    async with database.transaction() as session:
        await advance(session, "notes", [second], {partition: 1})


async def test_commits_survive_sigkill_and_open_transactions_do_not(url: str) -> None:
    script = f"""
import asyncio, os, signal
from sqlalchemy import insert
from tests.backbone.notes import Note, open_database
async def main():
    async with open_database({url!r}) as database:
        async with database.transaction() as session:
            await session.execute(insert(Note), [{{"about": "k", "text": "committed"}}])
        async with database.transaction() as session:
            await session.execute(insert(Note), [{{"about": "k", "text": "open"}}])
            os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    here = Path(__file__).parents[2]
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=here)
    assert await died.wait() == -9
    database = Database(url, MESSAGING_TABLES)
    assert await noted(database) == [("k", "committed")]
    await database.close()
