"""The order, repetition and batching of the same events do not change the public figures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from backbone.bus.sqlite import SqliteBus
from backbone.contracts import DriveState, Event, MatchingPoolChanged, PaymentChanged, PledgeStatus
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.messaging.consumer import Consumer
from services.leaderboard import queries
from services.leaderboard.domain import Figures
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.tables import creators, donors, drives
from services.leaderboard.tally import ConcurrentTally
from tests.engines import fresh_postgres
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    creator,
    drive,
    drive_row,
    empty,
    handle_events,
    log_rows,
    messages,
    milestone,
    open_database,
    payment,
    pledge,
    pool,
    ranks,
)
from tests.waiting import until

CREATORS = ("crt_a", "crt_b", "crt_c")


@pytest.fixture
async def shared_database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database shared by all examples of a test and emptied before each."""
    async with open_database(tmp_path) as opened:
        yield opened


@pytest.fixture
async def shared_postgres_database(tmp_path: Path) -> AsyncIterator[Database]:
    """The same on PostgreSQL."""
    async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
        yield opened


OTHER = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
UNKNOWN = "drv_01zzzzzzzzzzzzzzzzzzzzzzzz"
"""A drive without a DriveChanged event: its money is held."""


@st.composite
def payment_histories(draw: st.DrawFn, number: int) -> list[PaymentChanged]:
    """The versions of a payment, from its capture through refunds and disputes, sometimes held at first.

    Any version may change its drive, its creator and its donor, and correct what was captured. More may
    be lost in disputes than is left: until Stripe returns a part, the net is below 0.
    """
    foreign = draw(st.booleans()) and draw(st.booleans())
    always: dict[str, Any] = {
        "pledge_id": draw(st.sampled_from([None, f"plg_{number}"])),
        "currency": "EUR" if foreign else "USD",
        "captured_at": draw(st.sampled_from([None, NOON, NOON + timedelta(seconds=number)])),
        "offline": draw(st.booleans()) and draw(st.booleans()),
    }
    changing: dict[str, st.SearchStrategy[Any]] = {
        "drive_id": st.sampled_from([DRIVE, OTHER, UNKNOWN]),
        "creator_id": st.sampled_from([None, *CREATORS]),
        "donor_id": st.sampled_from([None, "dnr_a", "dnr_b"]),
    }
    about = {name: draw(values) for name, values in changing.items()}
    held_until = 99 if foreign else draw(st.integers(0, 2))
    found = []
    for version in range(1, draw(st.integers(1, 4)) + 1):
        if version > 1:
            about |= {name: draw(changing[name]) for name in draw(st.sets(st.sampled_from([*changing])))}
        captured = draw(st.sampled_from([500, 1000])) if version > 1 or draw(st.booleans()) else 0
        refunded = draw(st.integers(0, captured))
        disputed = draw(st.integers(0, captured))
        found.append(
            payment(
                f"pay_{number}",
                captured,
                refunded,
                disputed,
                version,
                held=version <= held_until or about["drive_id"] == UNKNOWN,
                changed_at=NOON + timedelta(seconds=10 * version + number),
                **always,
                **about,
            )
        )
    return found


@st.composite
def pledge_histories(draw: st.DrawFn, number: int) -> list[Event]:
    ends = draw(st.sampled_from([None, PledgeStatus.PAID, PledgeStatus.LAPSED, PledgeStatus.CANCELLED]))
    amount = draw(st.sampled_from([500, 1000, 2500]))
    made: list[Event] = [pledge(f"plg_{number}", amount)]
    if ends is not None:
        made.append(pledge(f"plg_{number}", amount, ends, version=2))
    return made


@st.composite
def pool_histories(draw: st.DrawFn, number: int) -> list[Event]:
    used = draw(st.lists(st.sampled_from([0, 300, 1200]), min_size=1, max_size=3))
    drive_id = draw(st.sampled_from([DRIVE, OTHER]))
    return [pool(f"mch_{number}", units, version, drive_id=drive_id) for version, units in enumerate(used, 1)]


@st.composite
def drive_histories(draw: st.DrawFn) -> list[Event]:
    """All events of a drive in the order in which they were published."""
    events: list[Event] = [
        drive(1, DriveState.DRAFT, milestones=[milestone(1000), milestone(2500)]),
        drive(2, DriveState.LIVE, milestones=[milestone(1000), milestone(2500)]),
        drive(1, DriveState.LIVE, drive_id=OTHER, slug="spring", milestones=[milestone(1000)]),
    ]
    events += [creator(one, one[-1].upper()) for one in CREATORS]
    for number in range(draw(st.integers(1, 4))):
        events += draw(pledge_histories(number))
        events += draw(payment_histories(number))
    for number in range(draw(st.integers(0, 2))):
        events += draw(pool_histories(number))
    return events


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """The events of a drive, and batches that deliver each of them at least once in any order."""
    events = draw(drive_histories())
    repeated = draw(st.lists(st.sampled_from(events), max_size=6))
    order = draw(st.permutations(events + repeated))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=8)))
    batches = [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    return events, batches


async def public_state(database: Database) -> dict[str, Any]:
    async with database.reading() as session:
        names = await session.execute(select(creators.c.creator_id).where(creators.c.version > 0))
        ranked = select(creators.c.creator_id, creators.c.raised, creators.c.donations, creators.c.reached_at)
        giving = await session.execute(
            select(donors.c.drive_id, donors.c.donor_id, donors.c.net)
            .where(donors.c.net != 0)
            .order_by(donors.c.drive_id, donors.c.donor_id)
        )
        return {
            "drives": {one: await drive_state(database, one) for one in (DRIVE, OTHER)},
            "leaders": await ranks(database),
            "creators": sorted(row.creator_id for row in names),
            "raised by": {
                row.creator_id: (row.raised, row.donations, row.reached_at)
                for row in await session.execute(ranked)
                if row.donations
            },
            "donors": [tuple(one) for one in giving],
            "books": {
                name: value for name, value in (await queries.books(session)).items() if value != "0.00"
            },
            "differences": await queries.differences(session),
        }


_BY_DELIVERY = (
    *("sequence", "revision", "head_hash", "milestones", "changed_at"),
    *("last_number", "alias_salt"),
)
"""What depends on the order of delivery, or on chance."""


async def drive_state(database: Database, drive_id: str) -> dict[str, Any]:
    row = await drive_row(database, drive_id)
    log = await log_rows(database, drive_id)
    return {
        **{
            name: getattr(row, name)
            for name in drives.c.keys()  # noqa: SIM118 (a column collection)
            if name not in _BY_DELIVERY
        },
        "reached": {
            one["amount"] for one in row.milestones if one["reached_at"] and one["amount"] <= raised(row)
        },
        "raised_after": log[-1]["raised_after"]["value"] if log else None,
    }


def raised(row: Any) -> int:
    return int(row.captured + row.offline + row.matched - row.refunded - row.disputed)


async def deliver(database: Database, batches: Sequence[Sequence[Event]]) -> dict[str, Any]:
    await empty(database)
    for batch in batches:
        await handle_events(database, *batch)
    return await public_state(database)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_order_repetition_and_batching_do_not_change_the_result(
    shared_database: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    events, batches = delivery
    in_order = await deliver(shared_database, [[event] for event in events])
    assert in_order["differences"] == []
    assert await deliver(shared_database, batches) == in_order


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_order_repetition_and_batching_do_not_change_the_result_on_postgresql(
    shared_postgres_database: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    events, batches = delivery
    in_order = await deliver(shared_postgres_database, [[event] for event in events])
    assert await deliver(shared_postgres_database, batches) == in_order


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_figures_equal_the_sum_of_the_newest_states(
    shared_database: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    events, batches = delivery
    shown = await deliver(shared_database, batches)
    final = {event.payment_id: event for event in events if isinstance(event, PaymentChanged)}
    pools = {event.pool_id: event for event in events if isinstance(event, MatchingPoolChanged)}
    for drive_id in (DRIVE, OTHER):
        here = [one for one in final.values() if not one.held and one.drive_id == drive_id]
        counted = [figures(one) for one in here]
        row = shown["drives"][drive_id]
        offline = [figures(one) for one in here if one.offline]
        assert row["offline"] == sum(one.net for one in offline)
        assert row["captured"] == sum(one.captured for one in counted) - sum(one.captured for one in offline)
        assert row["donations"] == sum(one.net > 0 for one in counted)
        matched = sum(one.used.minor_units for one in pools.values() if one.drive_id == drive_id)
        assert row["matched"] == matched
        assert row["raised_after"] == f"{(sum(one.net for one in counted) + matched) / 100:.2f}"
    net = {
        currency: sum(
            figures(one).net
            for one in final.values()
            if one.captured.currency == currency and not one.offline
        )
        for currency in ("EUR", "USD")
    }
    assert {currency: f"{units / 100:.2f}" for currency, units in net.items() if units} == shown["books"]
    assert shown["raised by"] == {
        one: facts for one in CREATORS if (facts := raised_by(one, final.values()))[1]
    }


def raised_by(creator_id: str, final: Iterable[PaymentChanged]) -> tuple[int, int, Any]:
    """The amount of a creator, the number of donations, and when the last of them was captured."""
    mine = [one for one in final if one.creator_id == creator_id and not one.held]
    gifts = [one.captured_at or one.changed_at for one in mine if figures(one).net > 0]
    return sum(figures(one).net for one in mine), len(gifts), max(gifts, default=None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_payment_is_logged_as_counted_once_in_any_order(
    shared_database: Database, delivery: tuple[list[Event], list[list[Event]]]
) -> None:
    events, batches = delivery
    await deliver(shared_database, batches)
    states: dict[str, set[tuple[str, bool]]] = {}
    for event in events:
        if isinstance(event, PaymentChanged):
            states.setdefault(event.payment_id, set()).add((event.drive_id, event.held))
    steady = {one for one, seen in states.items() if len(seen) == 1}
    for drive_id in (DRIVE, OTHER):
        rows = await log_rows(shared_database, drive_id)
        counted = [row["payment"] for row in rows if row["type"] == "donation.counted"]
        assert all(counted.count(one) == 1 for one in steady.intersection(counted))


def figures(event: PaymentChanged) -> Figures:
    return Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)


async def test_consumer_gives_the_same_result_as_the_handlers_in_order(
    shared_database: Database, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 (not a secret)
    events: list[Event] = [
        drive(),
        drive(drive_id=OTHER, slug="spring"),
        *(creator(one) for one in CREATORS),
    ]
    for number in range(60):
        events.append(pledge(f"plg_{number}", 1000))
        about: dict[str, Any] = {
            "pledge_id": f"plg_{number}",
            "creator_id": chance.choice(CREATORS),
            "donor_id": f"dnr_{number % 7}",
        }
        events += [
            payment(f"pay_{number}", 1000, 100 * version, version=version, **about) for version in (1, 2, 3)
        ]
    expected = await deliver(shared_database, [[event] for event in events])
    await empty(shared_database)
    bus = SqliteBus(tmp_path / "bus.db", synchronous="OFF")
    wire = messages(events)
    await bus.publish([*wire, *chance.sample(wire, 50)])
    chance.shuffle(wire)
    await bus.publish(wire)  # the same ids again: duplicates
    consumer = Consumer(
        "leaderboard", bus, ("pledges", "payments"), HANDLERS, shared_database, max_records=23
    )
    stop = asyncio.Event()
    running = asyncio.create_task(consumer.run(stop))

    async def caught_up() -> bool:
        return consumer.handled.is_set() and await consumer.behind() == 0

    await until(caught_up)
    stop.set()
    await running
    await bus.close()
    assert await public_state(shared_database) == expected


async def test_states_of_a_payment_in_two_drives_handled_concurrently_are_counted_once(
    shared_postgres_database: Database,
) -> None:
    """Two replicas do this when each owns the partition of one of the two drives."""
    database = shared_postgres_database
    about: dict[str, Any] = {"pledge_id": "plg_1", "creator_id": "crt_a", "donor_id": "dnr_a"}
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"), creator("crt_a"))
    for number in range(20):
        first = payment(f"pay_{number}", 500, version=1, **about)
        moved = payment(f"pay_{number}", 700, version=2, drive_id=OTHER, **about)
        back = payment(f"pay_{number}", 900, version=3, **about)
        await asyncio.gather(*(handle_with_retries(database, one) for one in (first, moved, back, first)))
    shown = await public_state(database)
    assert shown["differences"] == []
    assert shown["drives"][DRIVE]["captured"] == 20 * 900
    assert shown["drives"][OTHER]["captured"] == 0


async def handle_with_retries(database: Database, event: Event) -> None:
    """Retry after a conflict with another transaction, as the consumer does."""
    for _ in range(10):
        try:
            return await handle_events(database, event)
        except Exception as error:
            if not (isinstance(error, ConcurrentTally) or is_transient(error)):
                raise
    raise AssertionError("not received")
