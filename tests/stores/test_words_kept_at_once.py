"""Display texts stored by two concurrent lookups on PostgreSQL: no deadlock occurs."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from backbone.database import Database
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.tables import DOORS
from services.leaderboard.words import Words
from tests.leaderboard.builders import SECRET, PledgesDoor
from tests.real import fresh_postgres


async def deadlocks(database: Database) -> int:
    async with database.transaction() as session:
        await session.execute(text("SELECT pg_stat_force_next_flush()"))
        asked = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int((await session.execute(asked)).scalar_one())


async def test_the_same_gifts_in_opposite_order_never_wait_for_each_other_in_a_circle() -> None:
    async with fresh_postgres() as url:
        database = Database(url, DOORS)
        await database.migrate(MIGRATIONS)
        words = Words(database, PledgesDoor({}), SECRET)
        for number in range(12):
            gifts = [f"plg_{number}_{gift:03}" for gift in range(300)]
            one, other = await asyncio.gather(words.of(gifts), words.of(reversed(gifts)))
            assert one.keys() == other.keys() == set(gifts)
        assert await deadlocks(database) == 0
        await database.close()
