"""Two replicas on Kafka and PostgreSQL: the work is shared, and moves when one dies, sleeps or is cut off."""

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

from backbone.database import Database
from backbone.outbox import announce
from tests.backbone.notes import Note, Noted, open_database
from tests.conftest import Recovered
from tests.real import fresh_postgres, fresh_topics
from tests.waiting import until
from tests.warm import WarmProcess

SESSION_S = 3.0
SILENT_S = 2.0


@dataclass
class Town:
    """A database, a bus, and the replicas on them."""

    database: Database
    arguments: tuple[str, ...]
    replicas: list[WarmProcess] = field(default_factory=list)
    said: int = 0

    def start(self) -> None:
        replica = WarmProcess("tests.backbone.replica", self.arguments, os.environ, Path(os.devnull))
        self.replicas.append(replica)

    async def say(self, count: int = 120) -> None:
        """Events on every partition."""
        events = [Noted(about=f"k{n}", text=str(n)) for n in range(self.said, self.said + count)]
        async with self.database.transaction() as session:
            await announce(session, events)
        self.said += count

    async def signatures(self) -> Counter[str]:
        """How many notes each replica took; raises where one was taken twice."""
        async with self.database.reading() as session:
            rows = (await session.execute(select(Note.about, Note.text))).all()  # type: ignore[call-overload]
        assert len({row.text for row in rows}) == len(rows), "an event was noted twice"
        return Counter(row.about for row in rows)

    async def all_noted(self) -> bool:
        return (await self.signatures()).total() == self.said

    async def shared(self) -> bool:
        """Whether two take part: told by what they do with new events."""
        before = await self.signatures()
        await self.say()
        await until(self.all_noted)
        return len(await self.signatures() - before) == 2

    async def relays(self) -> int:
        """How many own the relay."""
        asked = text(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            " WHERE locktype = 'advisory' AND classid = 7355608 AND granted AND datname = current_database()"
        )
        async with self.database.reading() as session:
            return int((await session.execute(asked)).scalar_one())


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    """Two replicas at work; the first owns the relay."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fresh_postgres())
        bootstrap, prefix = await stack.enter_async_context(fresh_topics("notes", "notes.dead-letter"))
        database = await stack.enter_async_context(open_database(url))
        town = Town(database, (url, bootstrap, prefix, str(int(SESSION_S * 1000)), str(SILENT_S)))
        try:
            town.start()
            await until(town.relays)
            town.start()
            await until(town.shared)
            yield town
        finally:
            for replica in town.replicas:
                if replica.returncode is None:
                    replica.kill()
                replica.wait()


async def took_to(town: Town, what: str, recovered: Recovered) -> float:
    began = time.monotonic()
    await town.say()
    await until(town.all_noted)
    took = time.monotonic() - began
    recovered(f"{what}: everything noted after {took:.1f} s (session {SESSION_S:.0f} s)")
    return took


@pytest.mark.parametrize("killed", [0, 1])
async def test_the_other_takes_over_from_one_that_is_killed(
    town: Town, killed: int, recovered: Recovered
) -> None:
    assert await town.relays() == 1
    town.replicas[killed].kill()
    town.replicas[killed].wait()
    await took_to(town, "the relay's owner killed" if killed == 0 else "the other replica killed", recovered)
    assert await town.relays() == 1
    town.start()
    await until(town.shared)


async def test_a_zombie_that_wakes_after_its_session_does_nothing_twice(
    town: Town, recovered: Recovered
) -> None:
    zombie = town.replicas[1]
    await town.say(600)
    zombie.send_signal(signal.SIGSTOP)
    await took_to(town, "a replica asleep", recovered)
    zombie.send_signal(signal.SIGCONT)
    await took_to(town, "the sleeper woke", recovered)
    await until(town.shared)
    assert await town.relays() == 1


async def test_the_other_takes_over_from_a_relay_that_is_asleep(town: Town, recovered: Recovered) -> None:
    """A process that is stopped does not die: its lock ends because it is silent."""
    sleeper = town.replicas[0]
    await town.say(600)
    sleeper.send_signal(signal.SIGSTOP)
    await took_to(town, f"the relay's owner asleep (silent {SILENT_S:.0f} s)", recovered)
    sleeper.send_signal(signal.SIGCONT)
    await took_to(town, "the relay's owner woke", recovered)
    await until(town.shared)
    assert await town.relays() == 1


async def test_cut_connections_cost_nothing(town: Town, recovered: Recovered) -> None:
    await town.say(600)
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
               " WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    for _ in range(3):
        async with town.database.transaction() as session:
            await session.execute(cut)
        await town.say(50)
    await took_to(town, "all database connections cut three times", recovered)
    assert await town.relays() == 1
