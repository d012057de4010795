"""Migrations of existing rows, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, insert, select, text

from backbone.contracts.pledges import Source
from backbone.database.database import Database
from services.leaderboard import queries
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.tables import MESSAGING_TABLES, creators, display_texts, payments
from tests.engines import fresh_postgres
from tests.leaderboard.builders import NOON, creator, drive, handle_events, open_database, payment
from tests.leaderboard.test_boards import stored, sum_up


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
    remove_boards(connection)
    connection.execute(text("DROP INDEX payments_by_creator"))
    connection.execute(text("ALTER TABLE payments DROP COLUMN captured_at"))
    connection.execute(text("UPDATE creators SET reached_at = NULL"))
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.stamp(config, "0001", purge=True)


def remove_boards(connection: Connection) -> None:
    """Undo migration 0003 and those after it."""
    for index in (
        *("donors_by_raised", "donors_by_day_raised", "donors_by_hour_raised", "payments_by_time"),
        *("payments_by_number", "payments_of_donor_in_drive", "payments_by_source", "payments_unranked"),
        "words_pinned",
    ):
        connection.execute(text(f"DROP INDEX {index}"))
    sums = [f"{window}_{name}" for window in ("day", "hour") for name in ("raised", "donations")]
    for table, columns in {
        "drives": [
            *("last_number", "summed_number", "summed_sequence", "alias_salt"),
            *("day_from", "day_oldest", "hour_from", "hour_oldest"),
            *("alerts", "alerts_version"),
        ],
        "payments": [
            *("donor_key", "source_key", "number", "ranked_version", "offline"),
            *("given_captured", "given_refunded", "given_disputed"),
        ],
        "drive_log": ["given_amount", "given_currency"],
        "donors": ["raised", "donations", "reached_at", *sums],
        "creators": sums,
        "words": ["version", "decided", "drive_id", "pinned_at", "pin_version"],
        "pledges": ["payment_id"],
    }.items():
        for column in columns:
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
    for table in ("sources", "superseded", "matching_pools", "log_trees", "log_tiles", "logged_gifts"):
        connection.execute(text(f"DROP TABLE {table}"))


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


async def test_boards_are_summed_from_payments_stored_before_there_were_boards(database: Database) -> None:
    gifts = {"creator_id": "crt_a", "captured_at": NOON - timedelta(minutes=70)}
    named, unnamed = {"donor_id": "dnr_a", "pledge_id": "plg_1"}, {"donor_id": "dnr_a", "pledge_id": "plg_2"}
    await handle_events(
        database,
        drive(),
        creator("crt_a"),
        payment("pay_1", 500, **gifts, **named),
        payment("pay_2", 300, **gifts, **unnamed),
        payment("pay_3", 900, held=True, **gifts),
    )
    async with database.transaction() as session:
        texts = [{"pledge_id": "plg_1", "name": "Huda"}, {"pledge_id": "plg_2", "name": None}]
        await session.execute(insert(display_texts), texts)
        await session.run_sync(lambda plain: downgrade_to_the_first_version(plain.connection))
    await database.migrate(MIGRATIONS)
    await sum_up(database, NOON)
    assert await stored(database, "donors", "24h") == [("dnr_a", 500, 1), ("dnr_2", 300, 1)]
    assert await stored(database, "creators", "24h") == [("crt_a", 800, 2)]
    assert await stored(database, "donors", "1h") == []


@pytest.mark.parametrize("is_summed", [True, False])
async def test_payment_stored_before_there_were_boards_gets_its_source_with_its_next_state(
    database: Database, is_summed: bool
) -> None:
    gift = {"donor_id": "dnr_a", "captured_at": NOON - timedelta(minutes=70)}
    await handle_events(database, drive(), payment("pay_1", 500, **gift), payment("pay_2", 300, **gift))
    async with database.transaction() as session:
        await session.run_sync(lambda plain: downgrade_to_the_first_version(plain.connection))
    await database.migrate(MIGRATIONS)
    if is_summed:
        await sum_up(database, NOON)
        assert await stored(database, "sources") == []
        assert await stored(database, "donors") == [("dnr_1", 500, 1), ("dnr_2", 300, 1)]
    source = Source(platform="youtube")
    await handle_events(database, payment("pay_1", 500, refunded=100, version=2, source=source, **gift))
    await sum_up(database, NOON)
    assert await stored(database, "sources", "24h") == [("youtube", 400, 1)]
    assert await stored(database, "donors", "24h") == [("dnr_a", 400, 1), ("dnr_2", 300, 1)]
    async with database.reading() as session:
        assert await queries.differences(session) == []
