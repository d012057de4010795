"""Sums built again from the log and the payments are the sums that counting gave."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, delete, select, update

from backbone.database.database import Database
from services.leaderboard import standings
from services.leaderboard.rebuilding import Rebuilt, rebuild
from services.leaderboard.tables import clearings, creators, donors, drive_log, drives, payments, sources
from tests.engines import fresh_postgres
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    creator,
    drive,
    empty,
    handle_events,
    log_rows,
    open_database,
    payment,
    pledge,
)
from tests.leaderboard.test_delivery import CREATORS, OTHER, payment_histories

TABLES = (drives, clearings, creators, donors, sources, drive_log, payments)
POSITIONS = ("revision", "summed_number", "summed_sequence", "last_number")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            yield opened
    else:
        async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
            yield opened


async def sum_boards(database: Database) -> None:
    for drive_id in (DRIVE, OTHER):
        for _ in range(20):
            async with database.transaction() as session:
                if await session.run_sync(standings.bring_up_to_date, drive_id, NOON + timedelta(minutes=5)):
                    break
        else:
            raise AssertionError("the boards' sums lack something for ever")


async def state_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Everything stored but the positions of the boards' sums, and rows that sum nothing."""
    found = {}
    async with database.reading() as session:
        for table in TABLES:
            rows = (await session.execute(select(table).order_by(*table.primary_key))).all()
            shown = [
                {name: value for name, value in row._asdict().items() if name not in POSITIONS}
                for row in rows
            ]
            sums = [column.name for column in table.c if isinstance(column.type, BigInteger)]
            is_sums = table in (clearings, donors, sources)
            found[table.name] = [row for row in shown if not is_sums or any(row[name] for name in sums)]
    return found


async def built_again(database: Database, *, write: bool, drive_id: str = DRIVE) -> Rebuilt:
    async with database.transaction() as session:
        return await session.run_sync(lambda one: rebuild(one, drive_id, write=write))


async def corrupt(database: Database, chance: random.Random) -> None:
    """Change every kind of sum of the drive, each with a chance of a half."""
    statements: list[Any] = [
        update(drives).values({name: drives.c[name] + chance.randint(1, 9) for name in chance.sample(
            ["captured", "refunded", "disputed", "donations", "donors", "pledged"], 3)}),
        update(clearings).values(net=clearings.c.net + 5, held=3),
        delete(clearings),
        update(creators).values(raised=creators.c.raised + 7, donations=9, reached_at=None),
        update(donors).values(net=donors.c.net - 4),
        delete(donors),
        update(donors).values(raised=donors.c.raised + 1, day_raised=5, reached_at=NOON),
        update(sources).values(raised=99, hour_donations=4),
    ]  # fmt: skip
    async with database.transaction() as session:
        for statement in statements:
            if chance.random() < 0.5:
                table = statement.table
                await session.execute(statement.where(table.c.drive_id == DRIVE))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_rebuilt_sums_equal_those_that_any_history_counted(database: Database, data: Any) -> None:
    await empty(database)
    numbers = range(data.draw(st.integers(1, 5)))
    drawn = [event for number in numbers for event in data.draw(payment_histories(number))]
    # A creator belongs to one drive; pledges of another one are not taken for them.
    histories = [
        event if event.drive_id == DRIVE else event.model_copy(update={"creator_id": None}) for event in drawn
    ]
    chance = data.draw(st.randoms(use_true_random=False))
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="other"))
    await handle_events(database, *(creator(one, one) for one in CREATORS), pledge("plg_0"), pledge("plg_9"))
    for event in histories:
        await handle_events(database, event)
    await sum_boards(database)
    before = await state_of(database)
    untouched = await built_again(database, write=False)
    assert untouched == ([], [], False)

    await corrupt(database, chance)
    written = await built_again(database, write=True)
    assert written.written and not written.log
    await sum_boards(database)
    assert await state_of(database) == before
    assert await built_again(database, write=False) == ([], [], False)


async def test_differing_sums_are_named_and_not_touched_without_write(database: Database) -> None:
    await handle_events(database, drive(), creator("crt_a"))
    await handle_events(database, payment("pay_1", 2_500, creator_id="crt_a", donor_id="dnr_1"))
    await sum_boards(database)
    async with database.transaction() as session:
        await session.execute(update(drives).values(captured=2_600))
        await session.execute(update(creators).values(raised=1))
        await session.execute(update(donors).values(net=3))
    found = await built_again(database, write=False)
    assert {(one.name, one.stored, one.recounted) for one in found.sums} == {
        ("captured", 2_600, 2_500),
        ("raised", 2_600, 2_500),
        ("raised of crt_a", 1, 2_500),
        ("net of donor dnr_1", 3, 2_500),
    }
    assert (await built_again(database, write=False)).sums == found.sums


async def test_log_is_never_changed_and_a_payment_that_it_contradicts_prevents_writing(
    database: Database,
) -> None:
    await handle_events(database, drive())
    await handle_events(database, payment("pay_1", 2_500), payment("pay_2", 700))
    log = await log_rows(database)
    async with database.transaction() as session:
        await session.execute(update(payments).where(payments.c.payment_id == "pay_1").values(captured=9_900))
        await session.execute(update(drives).values(captured=5))
    found = await built_again(database, write=True)
    assert [tuple(one) for one in found.log] == [("pay_1", 9_900, 2_500)]
    assert not found.written
    async with database.reading() as session:
        assert (await session.execute(select(drives.c.captured))).scalar_one() == 5
    assert await log_rows(database) == log


async def test_unknown_drive_cannot_be_rebuilt(database: Database) -> None:
    with pytest.raises(LookupError):
        await built_again(database, write=True)
