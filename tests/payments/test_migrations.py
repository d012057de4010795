"""The migrations make the tables the code declares."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from backbone.database import Database
from services.payments.app import MIGRATIONS
from services.payments.cursors import Position, read_position
from services.payments.tables import DOORS, Table
from tests.real import fresh_postgres


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


async def test_the_migrated_schema_is_the_declared_one_and_migrating_again_changes_nothing(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'payments.db'}"
    database = Database(url, DOORS)
    await database.migrate(MIGRATIONS)
    await database.migrate(MIGRATIONS)
    await database.close()
    with create_engine(url).connect() as connection:
        assert differences(connection) == []


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_what_a_version_before_set_aside_or_noted_is_taken_over(store: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as held:
        url = f"sqlite:///{tmp_path / 'payments.db'}"
        if store == "postgresql":
            url = await held.enter_async_context(fresh_postgres())
        database = Database(url, DOORS)
        async with database.transaction() as session:
            await session.run_sync(lambda plain: bring_to(plain.connection(), "0002"))
            await session.execute(
                text(
                    "INSERT INTO webhooks (event_id, type, body, state, tries, created_at, received_at)"
                    " VALUES ('evt_1', 'refund.created', :body, 2, 3, 5, 7),"
                    " ('evt_2', 'refund.created', :body, 1, 0, 5, 7)"
                ),
                {"body": b"{}"},
            )
            await session.execute(
                text("INSERT INTO lanes (name, holder, until, cursor) VALUES ('backfill', '', 0, 9)")
            )
        await database.migrate(MIGRATIONS)
        async with database.reading() as session:
            rows = await session.execute(text("SELECT next_try_at FROM webhooks ORDER BY event_id"))
            assert [row.next_try_at for row in rows] == [7, None]
        assert await read_position(database, "backfill") == Position(9, None)
        await database.close()


def bring_to(connection: Connection, revision: str) -> None:
    """Migrate up to a revision."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)
