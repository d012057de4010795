"""The migrations make exactly the tables the code knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from backbone.database.database import Database
from services.notify.app import MIGRATIONS
from services.notify.tables import MESSAGING_TABLES, Table


async def test_migrations_produce_the_declared_schema(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'notify.db'}", MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    await database.migrate(MIGRATIONS)

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))

    async with database.reading() as session:
        assert await session.run_sync(lambda plain: differences(plain.connection)) == []
    await database.close()
