"""What is old goes, all of it, in batches between which others work; what is young stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Table, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from backbone import idempotency
from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.messaging import inbox
from backbone.periodic import BATCH, delete_oldest_statement, prune_until_empty, pruning_worker, run_every
from backbone.service import keep_running
from tests.backbone.notes import MESSAGING_TABLES, open_database, sqlite_url
from tests.engines import fresh_postgres
from tests.waiting import until

OLD, YOUNG = 300_000, 2_000


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(sqlite_url(tmp_path)) as opened:
            yield opened
    else:
        async with fresh_postgres() as url, open_database(url) as opened:
            yield opened


ENTRIES = {
    "inbox": """INSERT INTO inbox ("group", event_id, heard_at) SELECT 'notes', 'evt_' || n || :mark, :at""",
    "idempotency": "INSERT INTO idempotency (scope, key, body_hash, made_at)"
    " SELECT 's', 'k' || n || :mark, 'h', :at",
}
NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count) "


async def fill(database: Database, table: str, old: int = OLD) -> None:
    """Old entries and young ones, as many as a busy day leaves."""
    now = datetime.now(UTC)
    insert_, into = ENTRIES[table].split(" SELECT ", 1)
    async with database.transaction(timeout_s=60.0) as session:
        for mark, count, age in (("old", old, timedelta(days=8)), ("young", YOUNG, timedelta(hours=1))):
            statement = text(
                f"{insert_} {NUMBERS} SELECT {into} FROM numbers".replace("|| n ||", "|| CAST(n AS TEXT) ||")
                .replace(":mark", f"'{mark}'")
                .replace(":at", str(microseconds(now - age)))
            )
            await session.execute(statement, {"count": count})
    if not database.is_sqlite:
        async with database.transaction() as session:
            await session.execute(text("ANALYZE"))


async def count(database: Database, table: Table) -> int:
    async with database.reading() as session:
        return (await session.execute(select(func.count()).select_from(table))).scalar_one()


def forgetting(table: str) -> tuple[Table, Any]:
    return {
        "inbox": (MESSAGING_TABLES.inbox, inbox.delete_expired),
        "idempotency": (MESSAGING_TABLES.idempotency, idempotency.delete_expired),
    }[table]


def pruned(table: str) -> float:
    return REGISTRY.get_sample_value("ataa_pruned_rows_total", {"table": table}) or 0.0


@pytest.mark.parametrize("name", ["inbox", "idempotency"])
async def test_pruning_deletes_all_expired_rows_and_no_others(database: Database, name: str) -> None:
    table, forget = forgetting(name)
    await fill(database, name)
    before, ticks, over = pruned(f"notes.{name}"), 0, asyncio.Event()

    async def others() -> None:
        nonlocal ticks
        while not over.is_set():
            await asyncio.sleep(0.002)
            ticks += 1

    working = asyncio.create_task(others())
    step = partial(forget, database, at_most=5_000)
    deleted = await prune_until_empty(f"notes.{name}", step, asyncio.Event())
    over.set()
    await working
    assert deleted == OLD
    assert await count(database, table) == YOUNG
    assert pruned(f"notes.{name}") - before == OLD
    assert ticks > OLD / 5_000


@pytest.mark.parametrize("name", ["inbox", "idempotency"])
async def test_pruning_batch_uses_an_index(database: Database, name: str) -> None:
    table, _ = forgetting(name)
    await fill(database, name)
    age = table.c.heard_at if name == "inbox" else table.c.made_at
    statement: Any = delete_oldest_statement(database.is_sqlite, age)
    dialect = (sqlite if database.is_sqlite else postgresql).dialect(paramstyle="named")
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    week_ago = microseconds(datetime.now(UTC) - timedelta(days=7))
    async with database.transaction() as session:
        words = str(statement.compile(dialect=dialect))
        for name_, value in ((":before", week_ago), (":at_most", BATCH), (":param_1", 0)):
            words = words.replace(name_, str(value))
        rows = await session.execute(text(explain + words.replace("::BIGINT", "")))
        plan = "\n".join(" ".join(map(str, row)) for row in rows)
    assert f"{name}_by_age" in plan, plan
    assert "Seq Scan" not in plan, plan
    assert f"SCAN {name}\n" not in plan + "\n", plan


async def test_concurrent_pruning_of_two_replicas_does_not_block() -> None:
    async with fresh_postgres() as url, open_database(url) as one:
        other = Database(url, MESSAGING_TABLES)
        await fill(one, "inbox", 20_000)
        stop = asyncio.Event()
        deleted = await asyncio.gather(
            *(
                prune_until_empty("notes.inbox", partial(inbox.delete_expired, each), stop)
                for each in (one, other)
            )
        )
        assert sum(deleted) == 20_000
        assert await count(one, MESSAGING_TABLES.inbox) == YOUNG
        await other.close()


async def test_stop_ends_pruning_between_two_batches() -> None:
    stop, steps = asyncio.Event(), 0

    async def step() -> int:
        nonlocal steps
        steps += 1
        if steps == 3:
            stop.set()
        return 10

    assert await prune_until_empty("notes.inbox", step, stop) == 30


async def test_failure_to_prune_a_table_does_not_stop_the_others() -> None:
    left, stop = [5], asyncio.Event()

    async def fail() -> int:
        raise ValueError("no such table")

    async def step() -> int:
        return left.pop() if left else 0

    worker = pruning_worker("notes", {"broken": fail, "inbox": step})
    working = asyncio.create_task(keep_running(worker, stop))
    await until(lambda: not left)
    stop.set()
    await working


async def test_run_every_repeats_until_stopped() -> None:
    stop, rounds = asyncio.Event(), 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 4:
            stop.set()

    await run_every(0.001, work, stop)
    assert rounds == 4


async def test_all_expired_records_of_the_embedded_bus_are_deleted_in_one_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = SqliteBus(tmp_path / "bus.db", synchronous="OFF")
    member = await bus.subscribe("all", ["notes"])
    records = [Message("notes", f"k{n}", f"evt_{n}", "x", b"") for n in range(30_000)]
    await bus.publish(records)
    read = 0
    while batch := await member.fetch(10_000, 0.1):
        read += len(batch)
        await member.commit(inbox.next_positions(batch))
    assert read == len(records)
    assert await bus.prune() == 0  # all are young
    monkeypatch.setattr("backbone.bus.sqlite.KEEP_S", -60.0)
    assert await prune_until_empty("embedded.bus", bus.prune, asyncio.Event()) == len(records)
    await bus.close()
