"""The migrations create the tables that the code declares."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, select, text

from backbone.database.database import Database
from services.payments.app import MIGRATIONS
from services.payments.cursors import Position, read_position
from services.payments.reconciliation.hanging import PAST_THEIR_END
from services.payments.reconciliation.lookups import PLACEABLE
from services.payments.recording.estimates import ESTIMATES_BY_REASON
from services.payments.tables import FACTS, LOOKUPS, MESSAGING_TABLES, Table
from tests.engines import fresh_postgres


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


def upgrade_to(connection: Connection, revision: str) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)


FACT = (
    "INSERT INTO facts (id, kind, intent, units, currency, rank, at, posted, posted_to, postings, heard_at)"
    " VALUES (:id, :kind, :intent, 700, 'USD', 2, 1, 700, 'x', 1, 1)"
)


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_disputes_of_the_previous_version_are_kept_and_read_from_stripe_once(
    tmp_path: Path, store: str
) -> None:
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'payments.db'}"
        if store == "postgresql":
            url = await stack.enter_async_context(fresh_postgres())
        database = Database(url, MESSAGING_TABLES)
        async with database.transaction() as session:
            await session.run_sync(lambda plain: upgrade_to(plain.connection, "0002"))
            for name, kind in (("dp_1", "dispute"), ("dp_2", "dispute"), ("re_1", "refund")):
                values = {"id": name, "kind": kind, "intent": f"pi_{kind}"}
                await session.execute(text(FACT), values)
        await database.migrate(MIGRATIONS)
        async with database.reading() as session:
            (question,) = (await session.execute(select(LOOKUPS))).all()
            facts = (await session.execute(select(FACTS))).all()
        await database.close()
    assert (question.intent, question.kind, question.tries) == ("pi_dispute", "doubts", 0)
    assert timedelta(minutes=5) < question.ask_at - datetime.now(UTC) < timedelta(minutes=15)
    assert [(each.told_at, each.withdrawn, each.torn, each.doubt) for each in facts] == [
        (None, None, False, None)
    ] * 3


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_statements_run_each_minute_use_an_index(tmp_path: Path, store: str) -> None:
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'payments.db'}"
        if store == "postgresql":
            url = await stack.enter_async_context(fresh_postgres())
        database = Database(url, MESSAGING_TABLES)
        await database.migrate(MIGRATIONS)
        async with database.transaction() as session:
            if store == "postgresql":
                await session.execute(text("SET LOCAL enable_seqscan = off"))  # the tables are empty
            for statement, index in (
                (PLACEABLE, "facts_unplaced"),
                (ESTIMATES_BY_REASON, "facts_in_doubt"),
                (
                    PAST_THEIR_END.params(before=datetime.now(UTC), at=datetime.now(UTC), id=""),
                    "payments_hanging",
                ),
            ):
                dialect = session.dialect
                plain = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
                how = "EXPLAIN QUERY PLAN" if store == "sqlite" else "EXPLAIN"
                plan = str((await session.execute(text(f"{how} {plain}"))).all())
                assert index in plan, plan
        await database.close()


async def test_the_migrated_schema_is_the_declared_one_and_migrating_again_changes_nothing(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'payments.db'}"
    database = Database(url, MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    await database.migrate(MIGRATIONS)
    await database.close()
    with create_engine(url).connect() as connection:
        assert differences(connection) == []


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_rows_of_the_previous_version_are_migrated(store: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as held:
        url = f"sqlite:///{tmp_path / 'payments.db'}"
        if store == "postgresql":
            url = await held.enter_async_context(fresh_postgres())
        database = Database(url, MESSAGING_TABLES)
        async with database.transaction() as session:
            await session.run_sync(lambda plain: bring_to(plain.connection, "0002"))
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
