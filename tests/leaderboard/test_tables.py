"""The migrations make exactly the tables the code declares."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backbone.database import Database
from services.leaderboard.tables import Table


async def test_the_migrations_make_the_declared_tables(database: Database, tmp_path: Path) -> None:
    with sa.create_engine(f"sqlite:///{tmp_path / 'leaderboard.db'}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
