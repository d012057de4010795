"""One process at a time does what must not be done twice; another follows when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, make_url, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.ext.asyncio import AsyncConnection

from backbone.database.database import Database, is_transient
from backbone.database.leader_lock import LeaderLocks
from backbone.database.transient import DatabaseUnavailable
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
    """One PostgreSQL database as two processes see it."""
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


async def test_one_owns_and_the_other_follows_when_it_lets_go(pair: tuple[Database, Database]) -> None:
    one, other = pair
    async with other.leader_lock("work") as other_owns:
        async with one.leader_lock("work") as one_owns, one.leader_lock("more") as more:
            assert await one_owns()
            assert await more()
            assert not await other_owns()
            assert await one_owns()
        assert await other_owns()


async def test_an_ownership_ends_with_its_connection_and_says_so(pair: tuple[Database, Database]) -> None:
    one, other = pair
    async with one.leader_lock("work") as one_owns, other.leader_lock("work") as other_owns:
        assert await one_owns()
        await cut_every_connection(one)
        with pytest.raises(ConnectionError):
            while await one_owns():  # noqa: ASYNC110 (the question is what is tested)
                await asyncio.sleep(0.01)
        await until(other_owns)


async def test_an_owner_at_work_is_never_silent_and_one_that_hangs_is() -> None:
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


async def test_an_owner_of_whom_nothing_is_asked_says_something_all_the_same() -> None:
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
    """Of a process that does nothing any more."""

    async def _keep_alive(self, connection: AsyncConnection) -> None:
        return


async def test_work_moves_to_another_process_and_never_runs_in_two(pair: tuple[Database, Database]) -> None:
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


async def test_what_cannot_be_stored_is_told_from_a_database_that_is_away(
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


def test_a_connection_that_is_being_cut_is_a_database_that_is_away() -> None:
    # As seen on the real stack between PostgreSQL's farewell and the socket's end.
    words = "cannot switch to state 12; another operation (2) is in progress"
    cut = AsyncAdapt_asyncpg_dbapi.InternalClientError(words)
    assert is_transient(InternalError("SELECT 1", {}, cut))


async def test_the_locks_of_one_that_hangs_in_a_transaction_hold_nobody_up_for_long() -> None:
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


async def test_of_two_that_wait_for_each_other_the_one_chosen_may_try_again(
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
