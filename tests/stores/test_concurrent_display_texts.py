"""Display texts stored by two concurrent lookups on PostgreSQL: no deadlock occurs."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from backbone.database.database import Database
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.tables import MESSAGING_TABLES
from tests.engines import fresh_postgres
from tests.leaderboard.builders import SECRET, FakePledges


async def deadlocks(database: Database) -> int:
    async with database.transaction() as session:
        await session.execute(text("SELECT pg_stat_force_next_flush()"))
        asked = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int((await session.execute(asked)).scalar_one())


async def test_concurrent_lookups_in_opposite_order_do_not_deadlock() -> None:
    async with fresh_postgres() as url:
        database = Database(url, MESSAGING_TABLES)
        await database.migrate(MIGRATIONS)
        display_texts = DisplayTexts(database, FakePledges({}), SECRET)
        for number in range(12):
            gifts = [f"plg_{number}_{gift:03}" for gift in range(300)]
            one, other = await asyncio.gather(display_texts.of(gifts), display_texts.of(reversed(gifts)))
            assert one.keys() == other.keys() == set(gifts)
        assert await deadlocks(database) == 0
        await database.close()
