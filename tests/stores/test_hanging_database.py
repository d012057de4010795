"""Pledges, webhooks and payments over a hanging connection to PostgreSQL count once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backbone import ids
from backbone.bus.sqlite import SqliteBus
from backbone.clock import SystemClock
from backbone.contracts import PaymentStatus
from backbone.database.database import Database
from backbone.database.transient import DatabaseUnavailable
from backbone.messaging.consumer import Consumer
from backbone.service import Worker, keep_running
from services.leaderboard.freshness import INPUTS
from services.leaderboard.handlers import HANDLERS
from services.payments import app as payments
from services.payments import tables as payments_tables
from services.payments.webhooks.receive import WebhookStore
from services.pledges.tables import MESSAGING_TABLES, PLEDGES
from tests.backbone.stalling_proxy import Direction, StallingProxy, behind_stalling_proxy
from tests.engines import fresh_postgres
from tests.leaderboard import builders as leaderboard
from tests.payments.stripe_events import as_stored, intent_succeeded, metadata
from tests.pledges.harness import a_pledge
from tests.stores.test_two_pledges_replicas import replica
from tests.waiting import until

ANSWER_LOST: tuple[Direction, ...] = ("to_client",)
ALL_LOST: tuple[Direction, ...] = ("to_server", "to_client")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fresh_postgres() as fresh:
        yield fresh


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[StallingProxy]:
    async with behind_stalling_proxy(url) as proxy:
        yield proxy


async def count(database: Database, table: Any) -> int:
    async with database.reading() as session:
        return (await session.execute(select(func.count()).select_from(table))).scalar_one()


@pytest.mark.parametrize("direction", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_pledge_with_unknown_commit_is_503_and_its_retry_creates_one_pledge(
    proxy: StallingProxy, url: str, tmp_path: Path, direction: tuple[Direction, ...]
) -> None:
    direct = Database(url, MESSAGING_TABLES)
    async with replica(tmp_path, proxy.url) as pledges:
        await pledges.drive()
        proxy.stall_after(b"COMMIT", *direction)
        lost, *others = await asyncio.gather(*(pledges.pledge(key=f"k{n}") for n in range(5)))
        assert {reply.status for reply in (lost, *others)} == {503}
        assert lost.headers["retry-after"] == "1"
        assert await count(direct, PLEDGES) == (5 if direction == ANSWER_LOST else 0)

        async def again() -> Any:
            reply = await pledges.pledge(key="k0")
            return reply if reply.status == 201 else None

        made = await until(again)
        assert made.headers.get("idempotency-replayed") == ("true" if direction == ANSWER_LOST else None)
        assert (await pledges.pledge(a_pledge("26.00"), key="k0")).status == 422
        for n in range(5):
            assert (await pledges.pledge(key=f"k{n}")).status == 201
        assert await count(direct, PLEDGES) == await count(direct, MESSAGING_TABLES.idempotency) == 5
        assert await count(direct, MESSAGING_TABLES.outbox) == 5 + 2  # the drive was made and opened
    await direct.close()


async def test_pledges_after_a_connection_hangs_use_another_connection(
    proxy: StallingProxy, tmp_path: Path
) -> None:
    async with replica(tmp_path, proxy.url) as pledges:
        await pledges.drive()
        hung = proxy.stall_after(b"COMMIT")
        first = asyncio.create_task(pledges.pledge(key="first"))
        await asyncio.wait_for(hung.wait(), 5.0)
        later = await asyncio.gather(*(pledges.pledge(key=f"k{n}") for n in range(20)))
        assert {reply.status for reply in later} == {201}
        assert (await first).status == 503


@pytest.mark.parametrize("direction", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_webhook_with_unknown_commit_is_refused_and_its_retry_is_stored_once(
    proxy: StallingProxy, url: str, direction: tuple[Direction, ...]
) -> None:
    direct = Database(url, payments_tables.MESSAGING_TABLES)
    await direct.migrate(payments.MIGRATIONS)
    database = Database(proxy.url, payments_tables.MESSAGING_TABLES, timeout_s=1.0, idle_timeout_s=2.0)
    store = WebhookStore(database, SystemClock())
    event = as_stored(intent_succeeded("pi_1", 2500, metadata("pay_1", "plg_1", "drv_1")))
    proxy.stall_after(b"COMMIT", *direction)
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


@pytest.mark.parametrize("direction", [ANSWER_LOST, ALL_LOST], ids=["committed", "not committed"])
async def test_payments_tallied_over_a_hung_connection_count_once(
    proxy: StallingProxy, url: str, tmp_path: Path, direction: tuple[Direction, ...]
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    async with leaderboard.open_database(tmp_path, url) as direct:
        database = Database(proxy.url, leaderboard.MESSAGING_TABLES, timeout_s=1.0, idle_timeout_s=2.0)
        consumer = Consumer("leaderboard", bus, INPUTS, HANDLERS, database)
        stop = asyncio.Event()
        working = asyncio.create_task(keep_running(Worker("leaderboard.consumer", consumer.run), stop))
        await bus.publish(leaderboard.messages([leaderboard.drive()]))
        await until(consumer.handled.is_set)
        hung = proxy.stall_after(b"COMMIT", *direction)
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
