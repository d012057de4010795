"""The migrations produce the declared schema with the indexes that the statements need."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import sqlite

from backbone.database.database import Database
from services.leaderboard import superseding
from services.leaderboard.statements import statements
from services.leaderboard.tables import Table


async def test_migrations_produce_the_declared_schema(database: Database, tmp_path: Path) -> None:
    with sa.create_engine(f"sqlite:///{tmp_path / 'leaderboard.db'}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


async def test_reached_at_is_computed_with_an_index(database: Database) -> None:
    dialect = sqlite.dialect(paramstyle="named")
    statement = statements(sa.create_engine("sqlite://")).recompute_reached_at
    asked = sa.text(f"EXPLAIN QUERY PLAN {statement.compile(dialect=dialect)}")  # type: ignore[attr-defined]
    async with database.reading() as session:
        plan = [row.detail for row in await session.execute(asked, {"of_creator": "crt_a", "param_1": 0})]
    assert any("payments_by_creator" in line for line in plan), plan
    assert not any(line.startswith("SCAN payments") for line in plan), plan


async def test_moment_of_a_row_that_lost_a_gift_is_found_without_the_drives_other_payments(
    database: Database,
) -> None:
    dialect = sqlite.dialect(paramstyle="named")
    searches = []
    async with database.reading() as session:
        for statement in superseding._SUBTRACTING:
            compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
            asked = sa.text(f"EXPLAIN QUERY PLAN {compiled}")
            plan = await session.execute(asked, dict.fromkeys(compiled.params, 0))
            searches += [row.detail for row in plan if "payments" in row.detail]
    assert searches == [
        "SEARCH payments USING INDEX payments_of_donor_in_drive "
        "(donor_id=? AND drive_id=? AND captured_at>?)",
        "SEARCH payments USING PRIMARY KEY (payment_id=?)",
        "SEARCH payments USING INDEX payments_by_source (drive_id=? AND source_key=? AND captured_at>?)",
    ]
