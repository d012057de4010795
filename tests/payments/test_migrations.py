"""The migrations make the tables the code declares."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from backbone.database import Database
from services.payments.app import MIGRATIONS
from services.payments.tables import DOORS, Table


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
