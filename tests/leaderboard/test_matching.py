"""Matching pools in the figures of a drive: its sums, its log, its totals, and when they are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backbone.database.database import Database
from services.leaderboard import minute_counts, queries, totals
from services.leaderboard.freshness import ChangedDrives
from services.leaderboard.matching.pools import MOST_SHOWN
from services.leaderboard.matching.tables import pools
from tests.engines import fresh_postgres
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    creator,
    drive,
    drive_row,
    handle_events,
    log_rows,
    milestone,
    open_database,
    payment,
    pool,
    ranks,
    usd,
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            yield opened
    else:
        async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
            yield opened


async def shown(database: Database, now: datetime = NOON) -> dict[str, Any]:
    async with database.reading() as session:
        (figures,) = await session.run_sync(
            lambda inner: totals.read_figures(inner, [DRIVE], lambda _: True, now)
        )
    return figures.totals()


async def shown_ids(database: Database, now: datetime = NOON) -> list[str]:
    return [one["id"] for one in (await shown(database, now))["matching"]]


async def differences(database: Database) -> Any:
    async with database.reading() as session:
        return await queries.differences(session)


async def test_matched_money_is_logged_added_and_explained(database: Database) -> None:
    await handle_events(database, drive(milestones=[milestone(4_000)]), creator("crt_a"))
    await handle_events(database, payment("pay_1", 2_500, creator_id="crt_a"), pool("mch_a", 2_500, 2))
    await handle_events(database, pool("mch_a", 1_500, 3), pool("mch_a", 2_500, 2), pool("mch_a", 0, 1))
    rows = [(row["type"], row["amount"], row["raised_after"]["value"]) for row in await log_rows(database)]
    dollars = {units: {"currency": "USD", "value": f"{units}.00"} for units in (10, 25, 40)}
    assert rows == [
        ("drive.opened", None, "0.00"),
        ("donation.counted", dollars[25], "25.00"),
        ("matching.applied", dollars[25], "50.00"),
        ("milestone.reached", dollars[40], "50.00"),
        ("matching.returned", dollars[10], "40.00"),
    ]
    found = await shown(database)
    assert (found["raised"]["value"], found["by_state"]["matched"]["value"]) == ("40.00", "15.00")
    assert (found["donations"], found["donors"]) == (1, 1)
    assert [one["raised"]["value"] for one in await ranks(database)] == ["25.00"]
    assert await differences(database) == []


async def test_totals_have_the_pools(database: Database) -> None:
    await handle_events(database, drive(), pool("mch_a", 2_500))
    assert (await shown(database))["matching"] == [
        {
            "id": "mch_a",
            "sponsor": "Acme",
            "cap": {"currency": "USD", "value": "100.00"},
            "used": {"currency": "USD", "value": "25.00"},
            "ratio": "1.00",
            "creator": None,
        }
    ]


async def test_totals_say_whose_gifts_alone_a_pool_matches(database: Database) -> None:
    await handle_events(database, drive(), pool("mch_a", 2_500))
    await handle_events(database, pool("mch_a", 2_500, 2, creator_id="crt_a"))
    assert [one["creator"] for one in (await shown(database))["matching"]] == ["crt_a"]


async def test_scheduled_and_ended_pools_are_not_shown_and_used_up_ones_come_last(database: Database) -> None:
    hour = timedelta(hours=1)
    await handle_events(
        database,
        drive(),
        pool("mch_a", 10_000),
        pool("mch_b"),
        pool("mch_c", starts_at=NOON + hour),
        pool("mch_d", starts_at=NOON - hour, ends_at=NOON),
        pool("mch_e", ended_at=NOON),
        pool("mch_f", ends_at=NOON + hour),
    )
    assert await shown_ids(database) == ["mch_b", "mch_f", "mch_a"]
    assert await shown_ids(database, NOON + hour) == ["mch_b", "mch_c", "mch_a"]


async def test_pools_in_the_totals_are_limited(database: Database) -> None:
    await handle_events(database, drive(), *(pool(f"mch_{n:02}") for n in range(MOST_SHOWN + 1)))
    assert len(await shown_ids(database)) == MOST_SHOWN


async def test_drive_is_published_again_when_a_pool_starts_and_when_it_ends(database: Database) -> None:
    start, end = NOON + timedelta(hours=1), NOON + timedelta(hours=2, microseconds=1)
    await handle_events(database, drive(), pool("mch_a", starts_at=start, ends_at=end))
    changed = ChangedDrives()

    async def revision_at(now: datetime) -> int:
        await minute_counts.delete_expired(database, changed, lambda _: True, now)
        return int((await drive_row(database)).revision)

    before = await revision_at(start - timedelta(microseconds=1))
    assert await revision_at(start) == before + 1
    assert await revision_at(end - timedelta(microseconds=1)) == before + 1
    assert await revision_at(end + timedelta(seconds=1)) == before + 2
    assert list(changed.now()) == [DRIVE]


async def test_wrong_sum_is_found(database: Database) -> None:
    await handle_events(database, drive(), pool("mch_a", 2_500))
    assert await differences(database) == []
    async with database.transaction() as session:
        await session.execute(update(pools).values(used=2_499))
    assert await differences(database) == [f"{DRIVE} matched: 2500 kept, 2499 counted"]


async def test_pool_is_stored_before_its_drive_is_known(database: Database) -> None:
    await handle_events(database, pool("mch_a", 100))
    await handle_events(database, drive(goal=usd(500)))
    assert (await shown(database))["raised"]["value"] == "1.00"
