"""When the boards' sums are brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from backbone.bus.protocol import PARTITIONS, Partition
from backbone.clock import FrozenClock
from backbone.database.database import Database
from backbone.http.problems import Overloaded
from services.leaderboard.freshness import INPUTS, Freshness
from services.leaderboard.summing import Summing
from services.leaderboard.tables import drives
from tests.engines import fresh_postgres
from tests.leaderboard.builders import DRIVE, NOON, drive, handle_events, open_database, payment, running
from tests.leaderboard.test_boards import OTHER, stored
from tests.waiting import until


@pytest.fixture
async def postgres_database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
        yield opened


def owning_all() -> Freshness:
    """The freshness of a process that reads every partition."""
    return Freshness({}, lambda: {Partition(topic, n): 1 for topic in INPUTS for n in range(PARTITIONS)})


def summing(database: Database, clock: FrozenClock, **other: Any) -> Summing:
    return Summing(database, owning_all(), clock, **other)


def gift(number: int, **other: Any) -> Any:
    return payment(f"pay_{number}", 500, donor_id="dnr_a", captured_at=NOON, **other)


async def test_boards_are_summed_without_being_read(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, open_database(tmp_path) as database:
        await leaderboard.publish(drive(), gift(1), gift(2))

        async def summed() -> bool:
            async with database.reading() as session:
                return (await session.execute(select(drives.c.summed_number))).all() == [(2,)]

        await until(summed)


async def test_windows_slide_while_nothing_happens(database: Database) -> None:
    clock = FrozenClock(NOON)
    worker = summing(database, clock)
    await handle_events(database, drive(), gift(1))
    await worker.sum_due()
    assert await stored(database, "donors", "1h") == [("dnr_a", 500, 1)]
    clock.move(3600)
    await worker.sum_due()
    assert await stored(database, "donors", "1h") == []


async def test_concurrent_reads_bring_a_drive_up_to_date_once(database: Database) -> None:
    worker = summing(database, FrozenClock(NOON))
    await handle_events(database, drive(), gift(1))
    first, second = await asyncio.gather(
        worker.up_to_date(DRIVE, "2022-01-07T12:00:00.000Z"), worker.up_to_date(DRIVE, None)
    )
    assert first is second
    assert first.as_of == "2022-01-07T12:00:00.000Z"
    assert await stored(database, "donors") == [("dnr_a", 500, 1)]


async def test_read_of_a_drive_that_lacks_too_much_is_refused(database: Database) -> None:
    worker = summing(database, FrozenClock(NOON), rounds=0)
    await handle_events(database, drive(), gift(1))
    with pytest.raises(Overloaded):
        await worker.up_to_date(DRIVE, None)


async def test_events_that_wait_come_first(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, rests = [False], []

    async def rest(seconds: float) -> None:
        if seconds:
            rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", rest)
    worker = summing(database, FrozenClock(NOON), are_events_waiting=lambda: waiting[0])
    await handle_events(database, drive(), gift(1))
    await worker.sum_due()
    assert rests == []
    waiting[0] = True
    await handle_events(database, gift(2))
    await worker.sum_due()
    assert len(rests) == 1
    assert await stored(database, "donors") == [("dnr_a", 1000, 2)]


async def test_drive_that_cannot_be_summed_does_not_stop_the_others(database: Database) -> None:
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"))
    await handle_events(database, gift(1), gift(2, drive_id=OTHER))
    async with database.transaction() as session:
        await session.execute(
            text(f"CREATE TRIGGER broken BEFORE UPDATE ON donors WHEN new.drive_id = '{DRIVE}' "
                 "BEGIN SELECT RAISE(ABORT, 'broken'); END")
        )  # fmt: skip
    await summing(database, FrozenClock(NOON)).sum_due()
    assert await stored(database, "donors", drive_id=OTHER) == [("dnr_a", 500, 1)]
    assert await stored(database, "donors") == []


async def test_two_processes_sum_a_payment_once(postgres_database: Database) -> None:
    database = postgres_database
    await handle_events(database, drive(), *(gift(number) for number in range(30)))
    clock = FrozenClock(NOON + timedelta(seconds=1))
    first, second = summing(database, clock), summing(database, clock)
    await asyncio.gather(
        first.sum_due(), second.sum_due(), second.up_to_date(DRIVE, None), handle_events(database, gift(30))
    )
    await first.sum_due()
    assert await stored(database, "donors", "1h") == [("dnr_a", 31 * 500, 31)]
