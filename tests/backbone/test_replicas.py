"""Two replicas on Kafka and PostgreSQL share the work; one takes over when the other fails."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select, text

from backbone.database.database import Database
from backbone.database.leader_work import ADVISORY_LOCK
from backbone.messaging.outbox import announce
from tests.backbone.notes import Note, Noted, open_database
from tests.conftest import Recovered
from tests.engines import fresh_postgres, fresh_topics
from tests.forked_process import ForkedProcess
from tests.waiting import until

SESSION_S = 3.0
IDLE_TIMEOUT_S = 2.0


@dataclass
class ReplicaHarness:
    """A database, a bus, and the replicas on them."""

    database: Database
    arguments: tuple[str, ...]
    replicas: list[ForkedProcess] = field(default_factory=list)
    published: int = 0

    def start(self) -> None:
        replica = ForkedProcess("tests.backbone.replica", self.arguments, os.environ, Path(os.devnull))
        self.replicas.append(replica)

    async def publish(self, count: int = 120) -> None:
        """Publish events on every partition."""
        events = [Noted(about=f"k{n}", text=str(n)) for n in range(self.published, self.published + count)]
        async with self.database.transaction() as session:
            await announce(session, events)
        self.published += count

    async def signatures(self) -> Counter[str]:
        """The number of notes of each replica; raises for an event noted twice."""
        async with self.database.reading() as session:
            rows = (await session.execute(select(Note.about, Note.text))).all()  # type: ignore[call-overload]
        assert len({row.text for row in rows}) == len(rows), "an event was noted twice"
        return Counter(row.about for row in rows)

    async def all_noted(self) -> bool:
        return (await self.signatures()).total() == self.published

    async def shared(self) -> bool:
        """Whether both replicas handle new events."""
        before = await self.signatures()
        await self.publish()
        await until(self.all_noted)
        return len(await self.signatures() - before) == 2

    async def relays(self) -> int:
        """The number of leaders of the relay."""
        asked = text(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            f" WHERE locktype = 'advisory' AND classid = {ADVISORY_LOCK} AND granted"
            " AND datname = current_database()"
        )
        async with self.database.reading() as session:
            return int((await session.execute(asked)).scalar_one())


@pytest.fixture
async def harness() -> AsyncIterator[ReplicaHarness]:
    """Two running replicas; the first is the leader of the relay."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fresh_postgres())
        bootstrap, prefix = await stack.enter_async_context(fresh_topics("notes", "notes.dead-letter"))
        database = await stack.enter_async_context(open_database(url))
        harness = ReplicaHarness(
            database, (url, bootstrap, prefix, str(int(SESSION_S * 1000)), str(IDLE_TIMEOUT_S))
        )
        try:
            harness.start()
            await until(harness.relays)
            harness.start()
            await until(harness.shared)
            yield harness
        finally:
            for replica in harness.replicas:
                if replica.returncode is None:
                    replica.kill()
                replica.wait()


async def time_until(harness: ReplicaHarness, what: str, recovered: Recovered) -> float:
    began = time.monotonic()
    await harness.publish()
    await until(harness.all_noted)
    took = time.monotonic() - began
    recovered(f"{what}: everything noted after {took:.1f} s (session {SESSION_S:.0f} s)")
    return took


@pytest.mark.parametrize("killed", [0, 1])
async def test_replica_takes_over_from_a_killed_one(
    harness: ReplicaHarness, killed: int, recovered: Recovered
) -> None:
    assert await harness.relays() == 1
    harness.replicas[killed].kill()
    harness.replicas[killed].wait()
    await time_until(
        harness, "the relay's owner killed" if killed == 0 else "the other replica killed", recovered
    )
    assert await harness.relays() == 1
    harness.start()
    await until(harness.shared)


async def test_replica_resumed_after_its_session_repeats_nothing(
    harness: ReplicaHarness, recovered: Recovered
) -> None:
    zombie = harness.replicas[1]
    await harness.publish(600)
    zombie.send_signal(signal.SIGSTOP)
    await time_until(harness, "a replica stalled", recovered)
    zombie.send_signal(signal.SIGCONT)
    await time_until(harness, "the stalled replica resumed", recovered)
    await until(harness.shared)
    assert await harness.relays() == 1


async def test_replica_takes_over_from_a_stalled_relay(harness: ReplicaHarness, recovered: Recovered) -> None:
    """A stopped process keeps its connections; its lock is released because it is idle."""
    stalled = harness.replicas[0]
    await harness.publish(600)
    stalled.send_signal(signal.SIGSTOP)
    await time_until(harness, f"the relay's leader stalled (idle for {IDLE_TIMEOUT_S:.0f} s)", recovered)
    stalled.send_signal(signal.SIGCONT)
    await time_until(harness, "the relay's owner woke", recovered)
    await until(harness.shared)
    assert await harness.relays() == 1


async def test_cut_connections_lose_nothing(harness: ReplicaHarness, recovered: Recovered) -> None:
    await harness.publish(600)
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
               " WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    for _ in range(3):
        async with harness.database.transaction() as session:
            await session.execute(cut)
        await harness.publish(50)
    await time_until(harness, "all database connections cut three times", recovered)
    assert await harness.relays() == 1
