"""PostgreSQL connections that stall but stay open: every wait is bounded, nothing is done twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from backbone.bus.sqlite import SqliteBus
from backbone.database.database import READINESS_TIMEOUT_S, Database
from backbone.database.transient import DatabaseSlow
from backbone.http.service_client import InProcessServiceClient
from backbone.messaging.consumer import Consumer
from backbone.messaging.outbox import Relay, announce
from backbone.service import Worker, add_health, keep_running, new_app
from tests.backbone.notes import MESSAGING_TABLES, Note, Noted, noted, open_database, take_notes
from tests.backbone.stalling_proxy import Direction, StallingProxy, behind_stalling_proxy
from tests.engines import fresh_postgres
from tests.waiting import until

ANSWER_S = 1.0
FAREWELL_S = 2.0
"""The time SQLAlchemy gives a discarded connection to close gracefully."""
SLACK_S = 5.0
"""Tolerance for a loaded machine; without a timeout each of these waits is a quarter of an hour."""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_postgres() as fresh:
        yield fresh


@pytest.fixture
async def direct(url: str) -> AsyncIterator[Database]:
    """The database, without the proxy."""
    async with open_database(url) as database:
        yield database


@pytest.fixture
async def proxy(url: str, direct: Database) -> AsyncIterator[StallingProxy]:
    async with behind_stalling_proxy(url) as proxy:
        yield proxy


@pytest.fixture
async def database(proxy: StallingProxy) -> AsyncIterator[Database]:
    """The same database, through the proxy."""
    database = Database(proxy.url, MESSAGING_TABLES, timeout_s=ANSWER_S, idle_timeout_s=2.0)
    yield database
    proxy.resume()
    await database.close()


async def note(database: Database, text_: str) -> None:
    async with database.transaction() as session:
        await session.execute(insert(Note), [{"about": "k", "text": text_}])


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


async def open_connections(database: Database, connections: int) -> None:
    """Open so many connections in the pool."""

    async def hold() -> None:
        async with database.reading() as session:
            await session.execute(text("SELECT pg_sleep(0.1)"))

    await asyncio.gather(*(hold() for _ in range(connections)))


@pytest.mark.parametrize(
    "direction", [("to_server",), ("to_client",), ("to_server", "to_client")], ids="+".join
)
async def test_transaction_on_a_stalled_connection_ends_within_its_timeout(
    database: Database, proxy: StallingProxy, direction: tuple[Direction, ...]
) -> None:
    await open_connections(database, 3)
    proxy.stall(*direction)
    with ends_within(ANSWER_S + FAREWELL_S + SLACK_S), pytest.raises(DatabaseSlow):
        await note(database, "lost")
    with ends_within(ANSWER_S + FAREWELL_S + SLACK_S), pytest.raises(DatabaseSlow):
        await note(database, "lost on a new connection")
    proxy.resume()
    with ends_within(SLACK_S):
        await note(database, "kept")
    assert await noted(database) == [("k", "kept")]


async def test_one_stalled_connection_replaces_the_whole_pool_without_further_timeouts(
    database: Database, proxy: StallingProxy
) -> None:
    await open_connections(database, 8)
    proxy.stall_existing()
    with pytest.raises(DatabaseSlow):
        await note(database, "lost")
    with ends_within(SLACK_S):
        for number in range(20):
            await note(database, str(number))


async def test_stalled_idle_connection_is_replaced_without_an_error(
    database: Database, proxy: StallingProxy
) -> None:
    patient = Database(proxy.url, MESSAGING_TABLES)
    await open_connections(patient, 3)
    await asyncio.sleep(1.2)  # idle for longer than a second: checked before it is used
    proxy.stall_existing()
    await note(patient, "kept")
    await patient.close()


async def test_commit_whose_response_is_lost_is_reported_as_unknown_and_took_effect(
    database: Database, direct: Database, proxy: StallingProxy
) -> None:
    proxy.stall_after(b"COMMIT", "to_client")
    with pytest.raises(DatabaseSlow):
        await note(database, "done")
    assert await noted(direct) == [("k", "done")]


async def test_commit_that_never_arrives_is_rolled_back_and_releases_its_locks(
    database: Database, direct: Database, proxy: StallingProxy
) -> None:
    await note(database, "before")
    change = text("UPDATE notes SET about = about || 'x'")
    proxy.stall_after(b"COMMIT", "to_server", "to_client")
    with pytest.raises(DatabaseSlow):
        async with database.transaction() as session:
            await session.execute(change)
    with ends_within(2.0 + SLACK_S):  # here the server ends a transaction that is idle for 2 s
        async with direct.transaction(timeout_s=30.0) as session:
            await session.execute(change)
    assert await noted(direct) == [("kx", "before")]


async def test_server_ends_a_statement_that_the_client_abandoned(
    database: Database, direct: Database, proxy: StallingProxy
) -> None:
    proxy.stall_after(b"pg_sleep", "to_client")
    with pytest.raises(DatabaseSlow):
        async with database.transaction() as session:
            await session.execute(text("SELECT pg_sleep(600)"))
    running = text(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)%'"
        " AND pid <> pg_backend_pid()"
    )

    async def ended() -> bool:
        async with direct.reading() as session:
            return (await session.execute(running)).scalar_one() == 0

    await until(ended)


async def test_longer_timeout_applies_where_requested(database: Database) -> None:
    async with database.reading(timeout_s=30.0) as session:
        await session.execute(text("SELECT pg_sleep(1.5)"))
    with pytest.raises(DatabaseSlow):
        async with database.reading() as session:
            await session.execute(text("SELECT pg_sleep(1.5)"))


async def test_readiness_follows_the_availability_of_the_database(
    database: Database, proxy: StallingProxy
) -> None:
    app = new_app("notes", "secret")
    add_health(app, database.is_responding)
    peer = InProcessServiceClient(app)

    async def ready() -> int:
        with ends_within(READINESS_TIMEOUT_S + SLACK_S):
            return (await peer.request("GET", "/readyz", headers={})).status

    async def says(status: int) -> bool:
        return await ready() == status

    await until(lambda: says(200))  # the first connection may take longer than a probe waits
    proxy.stall()
    await until(lambda: says(503))
    assert (await peer.request("GET", "/livez", headers={})).status == 200
    proxy.resume()
    await until(lambda: says(200))


async def test_close_does_not_wait_for_a_stalled_connection(proxy: StallingProxy) -> None:
    database = Database(proxy.url, MESSAGING_TABLES, timeout_s=ANSWER_S)
    await open_connections(database, 3)
    proxy.stall()
    with ends_within(ANSWER_S + 3 * FAREWELL_S + SLACK_S):
        await database.close()


@asynccontextmanager
async def working(*works: tuple[str, Callable[[asyncio.Event], Awaitable[None]]]) -> AsyncIterator[None]:
    """Run workers as a service does, with restarts."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(keep_running(Worker(name, work), stop)) for name, work in works]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("words", [b"COMMIT", b"INSERT INTO notes"], ids=["commit", "insert"])
@pytest.mark.parametrize("direction", [("to_client",), ("to_server", "to_client")], ids="+".join)
async def test_consumer_on_a_stalled_connection_handles_each_event_once(
    direct: Database,
    database: Database,
    proxy: StallingProxy,
    tmp_path: Path,
    words: bytes,
    direction: tuple[Direction, ...],
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    consumer = Consumer("notes", bus, ["notes"], {Noted: take_notes}, database)
    texts = [f"t{n}" for n in range(30)]
    hung = proxy.stall_after(words, *direction)
    async with working(
        ("notes.consumer", consumer.run), ("notes.relay", Relay("n", direct, bus, ["notes"]).run)
    ):
        async with direct.transaction() as session:
            await announce(session, [Noted(about="k", text=one) for one in texts])
        await asyncio.wait_for(hung.wait(), SLACK_S)

        async def all_noted() -> bool:
            return len(await noted(direct)) == len(texts)

        await until(all_noted)
    assert [one for _, one in await noted(direct)] == texts
    await bus.close()


@pytest.mark.parametrize(
    "words", [b"FROM outbox", b"DELETE FROM outbox", b"COMMIT"], ids=["read", "delete", "commit"]
)
async def test_relay_on_a_stalled_connection_continues_without_loss(
    direct: Database, database: Database, proxy: StallingProxy, tmp_path: Path, words: bytes
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    seen = await bus.follow(["notes"], "beginning")
    async with direct.transaction() as session:
        await announce(session, [Noted(about="k", text=str(n)) for n in range(5)])
    hung = proxy.stall_after(words)
    relay = Relay("notes", database, bus, ["notes"])
    async with working(("notes.relay", relay.run)):
        await asyncio.wait_for(hung.wait(), SLACK_S)

        async def is_empty() -> bool:
            return await Relay("other", direct, bus, []).is_empty()

        await until(is_empty)
    records = [record for record in await seen.fetch(100, 1.0) if record.name]
    assert len({record.id for record in records}) == 5
    await bus.close()


@pytest.mark.parametrize(
    "direction", [("to_server",), ("to_client",), ("to_server", "to_client")], ids="+".join
)
async def test_leader_on_a_stalled_connection_stops_before_another_takes_over(
    direct: Database, url: str, proxy: StallingProxy, direction: tuple[Direction, ...]
) -> None:
    idle_timeout_s = 5.0
    busy: list[str] = []
    most = 0

    def work_of(name: str, database: Database) -> Callable[[asyncio.Event], Awaitable[None]]:
        async def work(stop: asyncio.Event) -> None:
            nonlocal most
            busy.append(name)
            most = max(most, len(busy))
            try:
                await stop.wait()
            finally:
                busy.remove(name)

        return database.run_as_leader("work", work)

    leader, standby = (
        Database(proxy.url, MESSAGING_TABLES, idle_timeout_s=idle_timeout_s),
        Database(url, MESSAGING_TABLES, idle_timeout_s=idle_timeout_s),
    )
    async with working(("work", work_of("leader", leader))):
        await until(lambda: busy == ["leader"])
        async with working(("work", work_of("standby", standby))):
            proxy.stall(*direction)
            with ends_within(idle_timeout_s + SLACK_S):
                await until(lambda: busy == ["standby"])
            proxy.resume()
            await until(leader.is_responding)
            assert busy == ["standby"]
        await until(lambda: busy == ["leader"])  # by itself, once packets flow and the lock is free
    assert most == 1
    await leader.close()
    await standby.close()
