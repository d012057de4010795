"""What moderators put on the screens, in the totals: the pinned message, and the state of the alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from backbone.clock import SystemClock, rfc3339
from backbone.contracts import AlertControl, AlertsControlled, MessageModerated
from backbone.database.database import Database
from backbone.ids import DriveId, PledgeId
from services.leaderboard import totals
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.on_screen import CONTROL_SHOWN
from services.leaderboard.tables import display_texts, drives, pledges
from tests.engines import fresh_postgres
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    SECRET,
    FakePledges,
    drive,
    handle_events,
    open_database,
    payment,
    pledge,
    running,
)
from tests.leaderboard.test_snapshots import reading_snapshots
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            yield opened
        return
    async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
        yield opened


SALAM: dict[str, Any] = {"name": "Huda", "message": "Salam"}


def moderated(version: int, state: str, number: int = 1, minutes: int = 0) -> MessageModerated:
    at = NOON + timedelta(minutes=minutes)
    return MessageModerated(
        pledge_id=f"plg_{number}", drive_id=DRIVE, version=version, state=state, moderated_at=at
    )


def alerts(version: int, **state: Any) -> AlertsControlled:
    fields: dict[str, Any] = {"paused": False, "skip": None, "replay": None}
    return AlertsControlled(drive_id=DriveId(DRIVE), version=version, **fields | state)


def made(version: int, number: int | None = None) -> AlertControl:
    pledge_id = None if number is None else PledgeId(f"plg_{number}")
    return AlertControl(version=version, at=NOON, pledge_id=pledge_id)


async def shown(database: Database, now: Any = NOON) -> dict[str, Any]:
    """The newest totals of the drive."""
    async with database.reading() as session:
        (figures,) = await session.run_sync(
            lambda inner: totals.read_figures(inner, [DRIVE], lambda _: True, now)
        )
    return figures.totals()


async def pinned(database: Database) -> Any:
    found = (await shown(database))["pinned"]
    return found and (found["id"], found["name"], found["message"], found["amount"]["value"])


async def fetch(database: Database, **answers: dict[str, Any]) -> None:
    """Store what pledges answers for these pledges."""
    await DisplayTexts(database, FakePledges(answers), SECRET).of(answers)


async def two_donations(database: Database) -> None:
    await handle_events(database, drive(), pledge("plg_1"), pledge("plg_2"))
    await handle_events(
        database,
        payment("pay_1", 2500, pledge_id="plg_1", captured_at=NOON),
        payment("pay_2", 900, pledge_id="plg_2", captured_at=NOON),
    )


async def test_newest_pinned_message_is_shown_until_it_is_unpinned_hidden_or_erased(
    database: Database,
) -> None:
    await two_donations(database)
    assert (await shown(database))["pinned"] is None
    await handle_events(database, moderated(1, "pinned", 1), moderated(1, "pinned", 2, minutes=1))
    assert await pinned(database) is None  # until the texts are there
    await fetch(database, plg_1=SALAM | {"version": 1}, plg_2={"name": None, "message": "Hi", "version": 1})
    assert await pinned(database) == ("don_2", None, "Hi", "9.00")
    await handle_events(database, moderated(2, "approved", 2))
    assert await pinned(database) == ("don_1", "Huda", "Salam", "25.00")
    await handle_events(database, moderated(2, "hidden", 1))
    assert await pinned(database) is None
    await handle_events(database, moderated(3, "pinned", 1))
    await fetch(database, plg_1=SALAM | {"version": 3})
    assert await pinned(database) == ("don_1", "Huda", "Salam", "25.00")
    async with database.transaction() as session:
        await session.execute(delete(display_texts).where(display_texts.c.pledge_id == "plg_1"))
    assert await pinned(database) is None


async def test_message_without_a_donation_that_counts_is_not_shown(database: Database) -> None:
    await handle_events(database, drive(), pledge("plg_1"))
    await handle_events(database, moderated(1, "pinned"))
    await fetch(database, plg_1=SALAM | {"version": 1})
    assert await pinned(database) is None  # not paid
    await handle_events(database, payment("pay_1", 2500, pledge_id="plg_1", captured_at=NOON))
    assert await pinned(database) == ("don_1", "Huda", "Salam", "25.00")
    refunded = payment("pay_1", 2500, 2500, version=2, pledge_id="plg_1", captured_at=NOON)
    await handle_events(database, refunded)
    assert await pinned(database) is None


async def test_pinned_message_without_text_is_not_shown(database: Database) -> None:
    await two_donations(database)
    await handle_events(database, moderated(1, "pinned"))
    await fetch(database, plg_1={"name": None, "message": None, "version": 1})
    assert await pinned(database) is None


async def test_gifts_stored_before_the_migration_can_be_shown(database: Database) -> None:
    await two_donations(database)
    async with database.transaction() as session:
        await session.execute(update(pledges).values(payment_id=None))
        await session.run_sync(lambda inner: _repeat_the_migration(inner.connection))
    await database.migrate(MIGRATIONS)
    await handle_events(database, moderated(1, "pinned"))
    await fetch(database, plg_1=SALAM | {"version": 1})
    assert await pinned(database) == ("don_1", "Huda", "Salam", "25.00")


def _repeat_the_migration(connection: Any) -> None:
    """Undo the migration and those after it; its columns are lost."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.downgrade(config, "0006")


async def test_pinned_message_reaches_snapshots_once_its_texts_are_fetched(tmp_path: Path) -> None:
    fake = FakePledges({"plg_1": SALAM | {"version": 0}})
    async with running(tmp_path, pledges=fake) as leaderboard, reading_snapshots(leaderboard) as reader:
        gift = payment("pay_1", pledge_id="plg_1", captured_at=NOON)
        newer = [payment(f"pay_{n}", pledge_id=f"plg_{n}", captured_at=NOON) for n in range(2, 40)]
        await leaderboard.publish(drive(), pledge("plg_1"), gift, *newer)  # `recent` no longer has it
        await reader.sequence(40)
        fake.display_texts["plg_1"] = SALAM | {"version": 1}
        await leaderboard.publish(moderated(1, "pinned"))
        await until(lambda: reader.newest is not None and reader.newest.totals["pinned"])
        assert reader.newest is not None
        assert reader.newest.totals["pinned"]["message"] == "Salam"
        await leaderboard.publish(moderated(2, "hidden"))
        await reader.showing(pinned=None)


STATES = st.sampled_from(["held", "approved", "hidden", "pinned"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATES, min_size=1, max_size=5), data=st.data())
async def test_any_order_of_delivery_ends_with_the_last_decision(
    database: Database, states: Sequence[str], data: st.DataObject
) -> None:
    """Decisions are repeated and reordered; texts are fetched in between, at any version."""
    async with database.transaction() as session:
        await session.execute(delete(display_texts))
    await two_donations(database)
    events = [moderated(number, state) for number, state in enumerate(states, 1)]
    for event in data.draw(st.permutations([*events, *data.draw(st.lists(st.sampled_from(events)))])):
        answer = data.draw(st.none() | st.integers(0, len(states)))
        if answer is not None:
            await fetch(database, plg_1=SALAM | {"version": answer})
        await handle_events(database, event)
    await fetch(database, plg_1=SALAM | {"version": len(states)})
    assert (await pinned(database) is not None) == (states[-1] == "pinned")


async def test_state_of_alerts_is_that_of_the_highest_version(database: Database) -> None:
    await handle_events(database, drive())
    nothing = {"version": 0, "paused": False, "skip": None, "replay": None}
    assert (await shown(database))["alerts"] == nothing
    before = await _revision(database)
    await handle_events(database, alerts(2, paused=True, skip=made(1)))
    at = rfc3339(NOON)
    newest = {"version": 2, "paused": True, "skip": {"version": 1, "at": at}, "replay": None}
    assert (await shown(database))["alerts"] == newest
    after = await _revision(database)
    assert after == before + 1
    await handle_events(database, alerts(1, skip=made(1)), alerts(2, paused=True, skip=made(1)))
    assert (await shown(database))["alerts"] == newest
    assert await _revision(database) == after
    later = NOON + CONTROL_SHOWN + timedelta(seconds=1)
    assert (await shown(database, later))["alerts"] == newest | {"skip": None}


async def _revision(database: Database) -> int:
    async with database.reading() as session:
        return int((await session.execute(drives.select())).one().revision)


async def test_donation_that_is_shown_again_follows_its_moderation(database: Database) -> None:
    await two_donations(database)
    await handle_events(database, alerts(1, replay=made(1)))
    assert (await shown(database))["alerts"]["replay"]["donation"] is None  # each screen's own last one
    await handle_events(database, alerts(2, replay=made(2, number=1)))
    assert (await shown(database))["alerts"]["replay"] is None  # until the texts are there
    await fetch(database, plg_1=SALAM | {"version": 0})
    replay = (await shown(database))["alerts"]["replay"]
    assert (replay["version"], replay["donation"]["id"], replay["donation"]["name"]) == (2, "don_1", "Huda")
    await handle_events(database, moderated(1, "hidden"))
    replay = (await shown(database))["alerts"]["replay"]
    assert (replay["donation"]["name"], replay["donation"]["message"]) == (None, None)


async def test_replay_of_a_donation_is_published_once_its_texts_are_fetched(tmp_path: Path) -> None:
    fake = FakePledges(unavailable=True)
    async with running(tmp_path, pledges=fake) as leaderboard, reading_snapshots(leaderboard) as reader:
        gift = payment("pay_1", pledge_id="plg_1", captured_at=NOON)
        await leaderboard.publish(drive(), pledge("plg_1"), gift)
        await reader.sequence(2)
        fake.display_texts["plg_1"] = SALAM | {"version": 0}
        fake.unavailable = False
        now = AlertControl(version=1, at=SystemClock().now(), pledge_id=PledgeId("plg_1"))
        await leaderboard.publish(alerts(1, replay=now))
        await until(lambda: reader.newest is not None and reader.newest.totals["alerts"]["replay"])
        assert reader.newest is not None
        assert reader.newest.totals["alerts"]["replay"]["donation"]["message"] == "Salam"
