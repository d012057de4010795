"""Leader locks: one process works at a time; another takes over when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, make_url, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.ext.asyncio import AsyncConnection

from backbone.database.database import Database
from backbone.database.leader_lock import LeaderLocks
from backbone.database.transient import DatabaseUnavailable, is_transient
from backbone.service import Worker, keep_running
from tests.backbone.notes import MESSAGING_TABLES, Note, open_database
from tests.engines import fresh_postgres
from tests.waiting import until

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND (pid = pg_backend_pid()) = :own
"""


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Database, Database]]:
    """One PostgreSQL database, opened by two processes."""
    async with fresh_postgres() as url, open_database(url) as one:
        other = Database(url, MESSAGING_TABLES)
        yield one, other
        await other.close()


async def cut_every_connection(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text(CUT), {"own": False})
    with pytest.raises(DBAPIError) as failed:
        async with database.transaction() as session:
            await session.execute(text(CUT), {"own": True})
    assert is_transient(failed.value)


async def test_standby_becomes_leader_when_the_lock_is_released(pair: tuple[Database, Database]) -> None:
    one, other = pair
    async with other.leader_lock("work") as other_owns:
        async with one.leader_lock("work") as one_owns, one.leader_lock("more") as more:
            assert await one_owns()
            assert await more()
            assert not await other_owns()
            assert await one_owns()
        assert await other_owns()


async def test_leader_lock_is_lost_with_its_connection_and_raises(pair: tuple[Database, Database]) -> None:
    one, other = pair
    async with one.leader_lock("work") as one_owns, other.leader_lock("work") as other_owns:
        assert await one_owns()
        await cut_every_connection(one)
        with pytest.raises(ConnectionError):
            while await one_owns():  # noqa: ASYNC110 (the question is what is tested)
                await asyncio.sleep(0.01)
        await until(other_owns)


async def test_working_leader_pings_and_hanging_leader_is_disconnected() -> None:
    async with fresh_postgres() as address:
        url = make_url(address).set(drivername="postgresql+asyncpg")
        lively, hanging, other = (
            LeaderLocks(url),
            LocksWithoutPings(url, idle_timeout_s=1.0),
            LeaderLocks(url),
        )
        async with lively.lock("mine") as mine, hanging.lock("its") as its, other.lock("its") as other_owns:
            assert await mine()
            assert await its()
            assert not await other_owns()
            await until(other_owns, 30)
            with pytest.raises(ConnectionError):
                while await its():  # noqa: ASYNC110 (the question is what is tested)
                    await asyncio.sleep(0.01)
            assert await mine()
        for each in (lively, hanging, other):
            await each.close()


async def test_idle_leader_pings_its_connection() -> None:
    asked = (
        "SELECT query_start FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'"
    )
    async with fresh_postgres() as address, open_database(address) as watcher:
        ownerships = LeaderLocks(make_url(address).set(drivername="postgresql+asyncpg"), idle_timeout_s=10.0)

        async def pinged() -> object:
            async with watcher.reading() as session:
                return (await session.execute(text(asked))).scalar_one_or_none()

        async with ownerships.lock("work") as is_leader:
            assert await is_leader()
            await until(pinged, 30)
            assert await is_leader()
        await ownerships.close()


class LocksWithoutPings(LeaderLocks):
    """The locks of a process that hangs."""

    async def _keep_alive(self, connection: AsyncConnection) -> None:
        return


async def test_work_moves_to_the_new_leader_and_never_runs_twice(pair: tuple[Database, Database]) -> None:
    busy: list[int] = []
    most = 0

    def worker(place: int, database: Database) -> Worker:
        async def work(stop: asyncio.Event) -> None:
            nonlocal most
            busy.append(place)
            most = max(most, len(busy))
            try:
                await stop.wait()
            finally:
                busy.remove(place)

        return Worker("work", database.run_as_leader("work", work))

    stops = asyncio.Event(), asyncio.Event()
    tasks = [
        asyncio.create_task(keep_running(worker(place, database), stops[place]))
        for place, database in enumerate(pair)
    ]
    await until(lambda: busy)
    first = busy[0]
    stops[first].set()
    await until(lambda: busy == [1 - first])
    await cut_every_connection(pair[first])
    await until(lambda: not busy)
    await until(lambda: busy == [1 - first])
    stops[1 - first].set()
    await asyncio.gather(*tasks)
    assert most == 1


async def test_permanent_errors_are_distinguished_from_an_unavailable_database(
    pair: tuple[Database, Database],
) -> None:
    one, _ = pair
    for wrong in ({"id": 2**70, "about": "k", "text": "t"}, {"about": "k", "text": None}):
        with pytest.raises(DBAPIError) as failed:
            async with one.transaction() as session:
                await session.execute(insert(Note), [wrong])
        assert not is_transient(failed.value)
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", MESSAGING_TABLES)
    with pytest.raises(DatabaseUnavailable) as refused:
        async with away.transaction() as session:
            await session.execute(text("SELECT 1"))
    assert is_transient(refused.value)
    await away.close()


def test_terminated_connection_is_an_unavailable_database() -> None:
    # As raised on the stack between PostgreSQL's termination message and the close of the socket.
    words = "cannot switch to state 12; another operation (2) is in progress"
    cut = AsyncAdapt_asyncpg_dbapi.InternalClientError(words)
    assert is_transient(InternalError("SELECT 1", {}, cut))


async def test_row_locks_of_a_hanging_transaction_are_released() -> None:
    change = text("UPDATE notes SET about = about")
    async with fresh_postgres() as url, open_database(url) as one:
        hanging = Database(url, MESSAGING_TABLES, idle_timeout_s=1.0)
        async with one.transaction() as session:
            await session.execute(insert(Note), [{"about": "k", "text": "t"}])
        with pytest.raises((DBAPIError, OSError)) as failed:
            async with hanging.transaction() as session:
                await session.execute(change)
                async with one.transaction() as other:
                    await other.execute(change)
                await session.execute(change)
        assert is_transient(failed.value)
        await hanging.close()


async def test_deadlock_victim_is_transient(
    pair: tuple[Database, Database],
) -> None:
    one, other = pair
    async with one.transaction() as session:
        await session.execute(insert(Note), [{"about": "k", "text": name} for name in ("a", "b")])
    met = asyncio.Barrier(2)

    async def change(database: Database, *names: str) -> None:
        async with database.transaction() as session:
            for name in names:
                await session.execute(text("UPDATE notes SET about = 'c' WHERE text = :name"), {"name": name})
                if name == names[0]:
                    await met.wait()

    ended = await asyncio.gather(change(one, "a", "b"), change(other, "b", "a"), return_exceptions=True)
    (deadlock,) = [error for error in ended if error is not None]
    assert is_transient(deadlock)
