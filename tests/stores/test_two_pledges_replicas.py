"""Two replicas of pledges on one PostgreSQL share idempotency keys, drives and donors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from backbone.bus.sqlite import SqliteBus
from backbone.database.database import Database
from services.pledges.app import compose
from services.pledges.settings import PledgesSettings
from services.pledges.tables import DONORS, DRIVES, MESSAGING_TABLES, PLEDGES
from tests.engines import fresh_postgres
from tests.pledges.harness import SECRET, Harness, a_pledge


@dataclass
class Replicas:
    """Two pledges services on one database, and the database."""

    one: Harness
    other: Harness
    database: Database

    async def count(self, table: Any) -> int:
        async with self.database.reading() as session:
            return (await session.execute(select(func.count()).select_from(table))).scalar_one()


@asynccontextmanager
async def replica(folder: Path, url: str) -> AsyncIterator[Harness]:
    bus = SqliteBus(folder / "bus.db")
    settings = PledgesSettings(
        data_dir=folder, internal_secret=SecretStr(SECRET), token_secret=SecretStr("t" * 20),
        database_url_pledges=url,
    )  # fmt: skip
    service = compose(settings, bus)
    await service.start()
    try:
        yield Harness(folder, bus, service)
    finally:
        await service.close()
        await bus.close()


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fresh_postgres())
        folders = [Path(mkdtemp(dir=tmp_path)) for _ in range(2)]
        # Both migrate at once: the schema's lock lets one at a time.
        starting = [stack.enter_async_context(replica(folder, url)) for folder in folders]
        one, other = await asyncio.gather(*starting)
        database = Database(url, MESSAGING_TABLES)
        stack.push_async_callback(database.close)
        yield Replicas(one, other, database)


async def deadlocks(database: Database) -> int:
    async with database.transaction() as session:
        await session.execute(text("SELECT pg_stat_force_next_flush()"))
        asked = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int((await session.execute(asked)).scalar_one())


async def test_same_keys_at_both_replicas_create_each_pledge_once(replicas: Replicas) -> None:
    await replicas.one.drive()
    keys = [f"k{n}" for n in range(120)]
    replies = await asyncio.gather(
        *(replicas.one.pledge(key=key) for key in keys),
        *(replicas.other.pledge(key=key) for key in reversed(keys)),
    )
    assert {reply.status for reply in replies} == {201}
    first, second = replies[:120], list(reversed(replies[120:]))
    assert [reply.json()["id"] for reply in first] == [reply.json()["id"] for reply in second]
    assert await replicas.count(PLEDGES) == await replicas.count(MESSAGING_TABLES.idempotency) == 120
    assert await replicas.count(MESSAGING_TABLES.outbox) == 122  # the drive was made and opened
    assert await deadlocks(replicas.database) == 0


async def test_other_body_under_a_key_used_at_the_other_replica_is_refused(replicas: Replicas) -> None:
    await replicas.one.drive()
    assert (await replicas.one.pledge(a_pledge("25.00"), key="k")).status == 201
    assert (await replicas.other.pledge(a_pledge("26.00"), key="k")).status == 422


async def test_donor_pledging_at_both_replicas_is_stored_once(replicas: Replicas) -> None:
    await replicas.one.drive()
    people = [a_pledge(donor={"email": f"d{n % 7}@example.org"}) for n in range(80)]
    replies = await asyncio.gather(
        *(replicas.one.pledge(person) for person in people),
        *(replicas.other.pledge(person) for person in reversed(people)),
    )
    assert {reply.status for reply in replies} == {201}
    assert await replicas.count(DONORS) == 7
    assert await deadlocks(replicas.database) == 0


async def test_no_pledge_is_made_after_the_other_replica_closed_the_drive(replicas: Replicas) -> None:
    """The pledge holds the drive FOR SHARE: closing waits for it, and who comes later sees it closed."""
    await replicas.one.drive()
    async with replicas.database.transaction() as session:
        await session.execute(select(DRIVES).with_for_update())
        promise = asyncio.create_task(replicas.one.pledge())
        await asyncio.wait({promise}, timeout=0.3)
        assert not promise.done()
        await session.execute(text("UPDATE drives SET state = 'closed'"))
    assert (await promise).status == 409
    assert await replicas.count(PLEDGES) == 0


async def test_pledge_during_a_close_is_made_before_it_or_refused(replicas: Replicas) -> None:
    await replicas.one.drive()
    both = (replicas.one, replicas.other)

    async def give() -> list[int]:
        return [(await both[n % 2].pledge()).status for n in range(40)]

    giving = [asyncio.create_task(give()) for _ in range(4)]
    closed = await replicas.other.post("/v1/drives/winter/close")
    statuses = [status for each in await asyncio.gather(*giving) for status in each]
    assert closed.status == 200
    assert set(statuses) <= {201, 409}
    assert await replicas.count(PLEDGES) == statuses.count(201)
    assert await deadlocks(replicas.database) == 0
