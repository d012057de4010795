"""Pledges, webhooks and payments over a hanging connection to PostgreSQL count once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backbone import ids
from backbone.bus_sqlite import SqliteBus
from backbone.clock import SystemClock
from backbone.consumer import Consumer
from backbone.contracts import PaymentStatus
from backbone.database import Database
from backbone.service import Worker, keep_running
from backbone.transient import DatabaseUnavailable
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.snapshots import INPUTS
from services.payments import app as payments
from services.payments import tables as payments_tables
from services.payments.webhooks import WebhookStore
from services.pledges.tables import DOORS, PLEDGES
from tests.backbone.black_hole import BlackHole, Direction, behind_a_black_hole
from tests.leaderboard import builders as leaderboard
from tests.payments.stripe_events import as_stored, intent_succeeded, metadata
from tests.pledges.stage import a_pledge
from tests.real import fresh_postgres
from tests.stores.test_two_replicas_take_pledges import replica
from tests.waiting import until

ANSWER_LOST: tuple[Direction, ...] = ("to_client",)
ALL_LOST: tuple[Direction, ...] = ("to_server", "to_client")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_postgres() as fresh:
        yield fresh


@pytest.fixture
async def hole(url: str) -> AsyncIterator[BlackHole]:
    async with behind_a_black_hole(url) as hole:
        yield hole


async def count(database: Database, table: Any) -> int:
    async with database.reading() as session:
        return (await session.execute(select(func.count()).select_from(table))).scalar_one()


@pytest.mark.parametrize("way", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_a_pledge_whose_commit_is_unknown_is_a_503_and_with_the_same_key_is_made_once(
    hole: BlackHole, url: str, tmp_path: Path, way: tuple[Direction, ...]
) -> None:
    direct = Database(url, DOORS)
    async with replica(tmp_path, hole.url) as pledges:
        await pledges.drive()
        hole.swallow_upon(b"COMMIT", *way)
        lost, *others = await asyncio.gather(*(pledges.pledge(key=f"k{n}") for n in range(5)))
        assert {reply.status for reply in (lost, *others)} == {503}
        assert lost.headers["retry-after"] == "1"
        assert await count(direct, PLEDGES) == (5 if way == ANSWER_LOST else 0)

        async def again() -> Any:
            reply = await pledges.pledge(key="k0")
            return reply if reply.status == 201 else None

        made = await until(again)
        assert made.headers.get("idempotency-replayed") == ("true" if way == ANSWER_LOST else None)
        assert (await pledges.pledge(a_pledge("26.00"), key="k0")).status == 422
        for n in range(5):
            assert (await pledges.pledge(key=f"k{n}")).status == 201
        assert await count(direct, PLEDGES) == await count(direct, DOORS.idempotency) == 5
        assert await count(direct, DOORS.outbox) == 5 + 2  # the drive was made and opened
    await direct.close()


async def test_pledges_not_yet_begun_when_a_connection_hangs_are_taken_on_another(
    hole: BlackHole, tmp_path: Path
) -> None:
    async with replica(tmp_path, hole.url) as pledges:
        await pledges.drive()
        hung = hole.swallow_upon(b"COMMIT")
        first = asyncio.create_task(pledges.pledge(key="first"))
        await asyncio.wait_for(hung.wait(), 5.0)
        later = await asyncio.gather(*(pledges.pledge(key=f"k{n}") for n in range(20)))
        assert {reply.status for reply in later} == {201}
        assert (await first).status == 503


@pytest.mark.parametrize("way", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_a_webhook_whose_commit_is_unknown_is_refused_and_sent_again_is_stored_once(
    hole: BlackHole, url: str, way: tuple[Direction, ...]
) -> None:
    direct = Database(url, payments_tables.DOORS)
    await direct.migrate(payments.MIGRATIONS)
    database = Database(hole.url, payments_tables.DOORS, answer_s=1.0, silent_s=2.0)
    store = WebhookStore(database, SystemClock())
    event = as_stored(intent_succeeded("pi_1", 2500, metadata("pay_1", "plg_1", "drv_1")))
    hole.swallow_upon(b"COMMIT", *way)
    with pytest.raises(DatabaseUnavailable):
        await store.keep(event)

    async def kept() -> bool:
        try:
            await store.keep(event)
        except DatabaseUnavailable:
            return False
        return True

    await until(kept)
    assert await count(direct, payments_tables.WEBHOOKS) == 1
    await database.close()
    await direct.close()


@pytest.mark.parametrize("way", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_gifts_tallied_over_a_connection_that_hangs_count_once_each(
    hole: BlackHole, url: str, tmp_path: Path, way: tuple[Direction, ...]
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    async with leaderboard.open_database(tmp_path, url) as direct:
        database = Database(hole.url, leaderboard.DOORS, answer_s=1.0, silent_s=2.0)
        consumer = Consumer("leaderboard", bus, INPUTS, HANDLERS, database)
        stop = asyncio.Event()
        working = asyncio.create_task(keep_running(Worker("leaderboard.consumer", consumer.run), stop))
        await bus.publish(leaderboard.messages([leaderboard.drive()]))
        await until(consumer.handled.is_set)
        hung = hole.swallow_upon(b"COMMIT", *way)
        gifts = [
            leaderboard.payment(f"pay_{n}", 2500, pledge_id=ids.new("plg"), status=PaymentStatus.CAPTURED)
            for n in range(20)
        ]
        await bus.publish(leaderboard.messages(gifts))
        await asyncio.wait_for(hung.wait(), 30.0)

        async def counted() -> bool:
            return await consumer.behind() == 0

        await until(counted)
        row = await leaderboard.drive_row(direct)
        stop.set()
        await bus.publish_watermarks("pledges", leaderboard.NOON, [0])
        await working
        await database.close()
    await bus.close()
    assert (row.captured, row.donations) == (50_000, 20)
