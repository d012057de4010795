"""Migrations of existing rows, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, select, text

from backbone.database.database import Database
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.tables import MESSAGING_TABLES, creators, payments
from tests.engines import fresh_postgres
from tests.leaderboard.builders import NOON, creator, drive, handle_events, open_database, payment


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            yield opened
        return
    async with fresh_postgres() as url, open_database(tmp_path, url) as opened:
        yield opened


def downgrade_to_the_first_version(connection: Connection) -> None:
    """Restore the schema of migration 0001 and its rows."""
    connection.execute(text("DROP INDEX payments_by_creator"))
    connection.execute(text("ALTER TABLE payments DROP COLUMN captured_at"))
    connection.execute(text("UPDATE creators SET reached_at = NULL"))
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.stamp(config, "0001", purge=True)


async def moments(database: Database) -> dict[str, Any]:
    async with database.reading() as session:
        captured = await session.execute(select(payments.c.payment_id, payments.c.captured_at))
        reached = await session.execute(select(creators.c.creator_id, creators.c.reached_at))
        return {**dict(map(tuple, captured)), **dict(map(tuple, reached))}


async def test_migration_reads_captured_at_from_the_log(database: Database) -> None:
    await handle_events(database, drive(), creator("crt_a"), creator("crt_b", "Sara"))
    at = {number: NOON + timedelta(seconds=number) for number in range(4)}
    await handle_events(
        database,
        payment("pay_1", 500, creator_id="crt_a", captured_at=at[1]),
        payment("pay_2", 500, creator_id="crt_a", captured_at=at[2]),
        payment("pay_3", 500, refunded=500, creator_id="crt_a", captured_at=at[3]),
    )
    before = await moments(database)
    async with database.transaction() as session:
        await session.run_sync(lambda plain: downgrade_to_the_first_version(plain.connection))
    await database.migrate(MIGRATIONS)
    assert await moments(database) == before
    assert before["crt_a"] == at[2]
    assert before["crt_b"] is None


async def test_empty_database_is_migrated(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fresh.db'}", MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    assert await moments(database) == {}
    await database.close()
