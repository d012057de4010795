"""Every order, repetition and split into batches of the same facts shows the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from backbone.bus_sqlite import SqliteBus
from backbone.consumer import Consumer
from backbone.contracts import DriveState, Event, PaymentChanged, PledgeStatus
from backbone.database import Database
from services.leaderboard import queries
from services.leaderboard.domain import Figures
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.tables import creators, donors, drives
from tests.leaderboard.builders import (
    NOON,
    creator,
    drive,
    drive_row,
    empty,
    hear,
    log_rows,
    messages,
    milestone,
    open_database,
    payment,
    pledge,
    ranks,
)
from tests.real import fresh_postgres
from tests.waiting import until

CREATORS = ("crt_a", "crt_b", "crt_c")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Database]:
    """One store for all examples of a test, emptied before each."""
    async with open_database(tmp_path) as opened:
        yield opened


@pytest.fixture
async def kept_on_postgresql(tmp_path: Path) -> AsyncIterator[Database]:
    """The same on PostgreSQL."""
    async with fresh_postgres() as url, open_database(tmp_path, url) as opened:
        yield opened


@st.composite
def lives(draw: st.DrawFn, number: int) -> list[PaymentChanged]:
    """A payment's versions, from its capture through refunds and disputes, perhaps held at first."""
    payment_id = f"pay_{number}"
    foreign = draw(st.booleans()) and draw(st.booleans())
    about: dict[str, Any] = {
        "pledge_id": draw(st.sampled_from([None, f"plg_{number}"])),
        "creator_id": draw(st.sampled_from([None, *CREATORS])),
        "donor_id": draw(st.sampled_from([None, "dnr_a", "dnr_b"])),
        "currency": "EUR" if foreign else "USD",
    }
    held_until = 99 if foreign else draw(st.integers(0, 2))
    found = []
    for version in range(1, draw(st.integers(1, 4)) + 1):
        captured = draw(st.sampled_from([500, 1000])) if version > 1 or draw(st.booleans()) else 0
        refunded = draw(st.integers(0, captured))
        disputed = draw(st.integers(0, captured - refunded))
        at = NOON + timedelta(seconds=10 * version + number)
        found.append(
            payment(
                payment_id,
                captured,
                refunded,
                disputed,
                version,
                held=version <= held_until,
                changed_at=at,
                **about,
            )
        )
    return found


@st.composite
def promises(draw: st.DrawFn, number: int) -> list[Event]:
    ends = draw(st.sampled_from([None, PledgeStatus.PAID, PledgeStatus.LAPSED, PledgeStatus.CANCELLED]))
    amount = draw(st.sampled_from([500, 1000, 2500]))
    made: list[Event] = [pledge(f"plg_{number}", amount)]
    if ends is not None:
        made.append(pledge(f"plg_{number}", amount, ends, version=2))
    return made


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    """All that is said of a drive, in the order in which it was said."""
    said: list[Event] = [
        drive(1, DriveState.DRAFT, milestones=[milestone(1000), milestone(2500)]),
        drive(2, DriveState.LIVE, milestones=[milestone(1000), milestone(2500)]),
    ]
    said += [creator(one, one[-1].upper()) for one in CREATORS]
    for number in range(draw(st.integers(1, 4))):
        said += draw(promises(number))
        said += draw(lives(number))
    return said


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """A story, and batches that bring each of its facts at least once, in any order."""
    said = draw(stories())
    repeated = draw(st.lists(st.sampled_from(said), max_size=6))
    order = draw(st.permutations(said + repeated))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=8)))
    batches = [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    return said, batches


async def what_is_shown(database: Database) -> dict[str, Any]:
    row = await drive_row(database)
    log = await log_rows(database)
    async with database.reading() as session:
        names = await session.execute(select(creators.c.creator_id).where(creators.c.version > 0))
        giving = await session.execute(
            select(donors.c.donor_id, donors.c.net).where(donors.c.net > 0).order_by(donors.c.donor_id)
        )
        return {
            "drive": {
                name: getattr(row, name)
                for name in drives.c.keys()  # noqa: SIM118 (a column collection)
                if name not in ("sequence", "revision", "head_hash", "milestones", "changed_at")
            },
            "reached": {
                one["amount"] for one in row.milestones if one["reached_at"] and one["amount"] <= raised(row)
            },
            "leaders": await ranks(database),
            "creators": sorted(row.creator_id for row in names),
            "donors": [tuple(one) for one in giving],
            "books": await queries.books(session),
            "differences": await queries.differences(session),
            "raised_after": log[-1]["raised_after"] if log else None,
        }


def raised(row: Any) -> int:
    return int(row.captured + row.offline + row.matched - row.refunded - row.disputed)


async def deliver(database: Database, batches: Sequence[Sequence[Event]]) -> dict[str, Any]:
    await empty(database)
    for batch in batches:
        await hear(database, *batch)
    return await what_is_shown(database)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_any_order_repetition_and_split_shows_the_same(
    kept: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    said, batches = delivery
    in_order = await deliver(kept, [[event] for event in said])
    assert in_order["differences"] == []
    assert await deliver(kept, batches) == in_order


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_any_order_repetition_and_split_shows_the_same_on_postgresql(
    kept_on_postgresql: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    said, batches = delivery
    in_order = await deliver(kept_on_postgresql, [[event] for event in said])
    assert await deliver(kept_on_postgresql, batches) == in_order


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_what_is_shown_is_what_the_newest_facts_add_up_to(
    kept: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    said, batches = delivery
    shown = await deliver(kept, batches)
    final = {event.payment_id: event for event in said if isinstance(event, PaymentChanged)}
    counted = [figures(event) for event in final.values() if not event.held]
    assert shown["drive"]["captured"] == sum(one.captured for one in counted)
    assert shown["drive"]["donations"] == sum(one.net > 0 for one in counted)
    if shown["raised_after"] is not None:
        assert shown["raised_after"]["value"] == f"{sum(one.net for one in counted) / 100:.2f}"
    net = {
        currency: sum(figures(one).net for one in final.values() if one.captured.currency == currency)
        for currency in ("EUR", "USD")
    }
    assert {currency: f"{units / 100:.2f}" for currency, units in net.items() if units} == {
        currency: value for currency, value in shown["books"].items() if value != "0.00"
    }


def figures(event: PaymentChanged) -> Figures:
    return Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)


async def test_the_consumer_on_the_bus_shows_what_the_handlers_in_order_show(
    kept: Database, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 (not a secret)
    said: list[Event] = [drive(), *(creator(one) for one in CREATORS)]
    for number in range(60):
        said.append(pledge(f"plg_{number}", 1000))
        about: dict[str, Any] = {
            "pledge_id": f"plg_{number}",
            "creator_id": chance.choice(CREATORS),
            "donor_id": f"dnr_{number % 7}",
        }
        said += [
            payment(f"pay_{number}", 1000, 100 * version, version=version, **about) for version in (1, 2, 3)
        ]
    expected = await deliver(kept, [[event] for event in said])
    await empty(kept)
    bus = SqliteBus(tmp_path / "bus.db", synchronous="OFF")
    wire = messages(said)
    await bus.publish([*wire, *chance.sample(wire, 50)])
    chance.shuffle(wire)
    await bus.publish(wire)  # the same ids: heard before
    consumer = Consumer("leaderboard", bus, ("pledges", "payments"), HANDLERS, kept, max_records=23)
    stop = asyncio.Event()
    running = asyncio.create_task(consumer.run(stop))

    async def caught_up() -> bool:
        return consumer.handled.is_set() and await consumer.behind() == 0

    await until(caught_up)
    stop.set()
    await running
    await bus.close()
    assert await what_is_shown(kept) == expected
