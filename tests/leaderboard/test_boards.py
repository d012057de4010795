"""Every board and window equals a plain sort of the payments that count, on both stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from backbone.contracts import CreatorChanged, PaymentChanged
from backbone.contracts.pledges import Source
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction
from services.leaderboard import boards, domain, queries, standings, starting_anew
from services.leaderboard.boards import Board, Window
from services.leaderboard.tables import NEVER_SUMMED, donors, drives, payments, superseded
from tests.engines import fresh_postgres
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    creator,
    drive,
    empty,
    handle_events,
    open_database,
    payment,
)

OTHER = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
CREATORS = {"crt_a": "Red", "crt_b": "Red", "crt_c": "Blue", "crt_d": None}
OTHERS_CREATOR = "crt_e"
TEAMS: Final[Mapping[str, str | None]] = CREATORS | {OTHERS_CREATOR: "Red"}
SOURCES = (None, Source(platform="youtube"), Source(platform="a/b", campaign="50%"), Source(campaign="night"))
SPANS: Final = {"all": timedelta(days=365), "24h": timedelta(hours=24), "1h": timedelta(hours=1)}


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            yield opened
        return
    async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
        yield opened


async def sum_up(database: Database, now: datetime, most: int = 2_000) -> None:
    """Bring the sums of both drives up to date, `most` payments at a time."""
    for drive_id in (DRIVE, OTHER):
        bring = partial(bring_once, drive_id=drive_id, now=now, most=most)
        done = False
        while not done:
            async with database.transaction() as session:
                done = await session.run_sync(bring)


def bring_once(session: SyncTransaction, drive_id: str, now: datetime, most: int) -> bool:
    return standings.bring_up_to_date(session, drive_id, now, most)


Place = tuple[str, int, int]
"""Key, raised, donations."""


async def stored(
    database: Database, board: Board, window: Window = "all", limit: int = 100, drive_id: str = DRIVE
) -> list[Place]:
    """The ranks of a board."""
    async with database.reading() as session:
        found = await session.run_sync(lambda inner: boards.top(inner, drive_id, board, window, limit))
    return [(row.key, row.raised, row.donations) for row in found.rows]


async def stored_around(database: Database, board: Board, window: Window, key: str) -> list[Any]:
    async with database.reading() as session:
        found = await session.run_sync(lambda inner: boards.around(inner, DRIVE, board, window, 3, key))
    assert found is not None
    return [(rank, row.key) for rank, row in enumerate(found.rows, found.skipped + 1)]


def ranked(gifts: Iterable[tuple[str | None, PaymentChanged]]) -> list[Place]:
    """A plain sort of gifts, each with whom it is summed for."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    reached: dict[str, datetime] = {}
    for key, gift in gifts:
        if key is None:
            continue
        left = gift.captured.minor_units - gift.refunded.minor_units - gift.disputed.minor_units
        sums[key][0] += left
        if left > 0:
            assert gift.captured_at is not None
            sums[key][1] += 1
            reached[key] = max(gift.captured_at, reached.get(key, gift.captured_at))
    places = [(key, raised, gifts) for key, (raised, gifts) in sums.items() if raised > 0]
    return sorted(places, key=lambda one: (-one[1], reached[one[0]], one[0]))


def expected(
    board: Board,
    drive_id: str,
    newest: Iterable[PaymentChanged],
    window: Window,
    now: datetime,
    salt: str,
    teams: Mapping[str, str | None] = TEAMS,
) -> list[Place]:
    """What a board shows at `now`, from the newest states of the payments."""
    counted = [
        one
        for one in newest
        if not one.held
        and one.drive_id == drive_id
        and one.captured_at is not None
        and one.captured_at > now - SPANS[window]
    ]
    return ranked((key_of(board, one, salt, teams), one) for one in counted)


def key_of(board: Board, gift: PaymentChanged, salt: str, teams: Mapping[str, str | None]) -> str | None:
    match board:
        case "creators":
            return gift.creator_id
        case "teams":
            return teams.get(gift.creator_id or "")
        case "sources":
            return domain.source_key(gift.source)
        case "donors":
            if gift.donor_id is None:
                return gift.payment_id.replace("pay", "dnr")
            return gift.donor_id if gift.anonymous is False else domain.alias_of_donor(salt, gift.donor_id)


async def salts(database: Database) -> dict[str, str]:
    async with database.reading() as session:
        rows = await session.execute(select(drives.c.drive_id, drives.c.alias_salt))
        return {row.drive_id: row.alias_salt or "" for row in rows}


# Any history.


@st.composite
def histories(draw: st.DrawFn, number: int) -> list[PaymentChanged]:
    """The versions of a payment: captured in the last 26 hours, refunded, disputed, corrected, moved."""
    changing: dict[str, st.SearchStrategy[Any]] = {
        "drive_id": st.sampled_from([DRIVE, DRIVE, OTHER]),
        "creator_id": st.sampled_from([None, *CREATORS]),
        "donor_id": st.sampled_from([None, "dnr_a", "dnr_a", "dnr_b"]),
        "source": st.sampled_from(SOURCES),
        "anonymous": st.sampled_from([False, False, True, None]),
        "captured_at": st.sampled_from([0, 1, 59, 60, 61, 120, 1439, 1441, 1500]).map(
            lambda minutes: NOON - timedelta(minutes=minutes)
        ),
        "held": st.sampled_from([False, False, True]),
    }
    about = {name: draw(values) for name, values in changing.items()}
    found = []
    for version in range(1, draw(st.integers(1, 3)) + 1):
        if version > 1:
            about |= {name: draw(changing[name]) for name in draw(st.sets(st.sampled_from([*changing])))}
        captured = draw(st.sampled_from([500, 1000]))
        lost = draw(st.sampled_from([(0, 0), (0, 0), (500, 0), (250, 0), (0, captured), (500, captured)]))
        given = dict(about)
        if given["drive_id"] == OTHER and given["creator_id"] is not None:
            given["creator_id"] = OTHERS_CREATOR  # a creator belongs to one drive
        found.append(payment(f"pay_{number}", captured, *lost, version, **given))
    return found


class Delivery(NamedTuple):
    """Batches of events in any order, each with the moment at which sums are brought up to date after it."""

    batches: list[tuple[list[PaymentChanged], datetime | None]]
    newest: list[PaymentChanged]
    now: datetime
    most: int


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    events = [event for number in range(draw(st.integers(1, 8))) for event in draw(histories(number))]
    order = draw(st.permutations(events))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)) | {len(order)})
    moments = sorted(
        draw(st.lists(st.sampled_from([0, 1, 30, 61, 120, 1440]), min_size=len(cuts), max_size=len(cuts)))
    )
    batches = []
    for start, end, minutes in zip([0, *cuts], cuts, moments, strict=False):
        at = NOON + timedelta(minutes=minutes) if draw(st.sampled_from([True, True, False])) else None
        batches.append((list(order[start:end]), at))
    newest = domain.newest(events, lambda one: one.payment_id)
    return Delivery(
        batches, newest, NOON + timedelta(minutes=moments[-1]), draw(st.sampled_from([1, 2, 2_000]))
    )


CREATED: Final[Sequence[CreatorChanged]] = [
    creator(one, one[-1], team=team, drive_id=OTHER if one == OTHERS_CREATOR else DRIVE)
    for one, team in TEAMS.items()
]


async def check(database: Database, delivery: Delivery) -> None:
    await empty(database)
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"), *CREATED)
    for batch, at in delivery.batches:
        await handle_events(database, *batch)
        if at is not None:
            await sum_up(database, at, delivery.most)
    await sum_up(database, delivery.now, delivery.most)
    known = await salts(database)
    for drive_id in (DRIVE, OTHER):
        for board in get_args(Board):
            for window in get_args(Window):
                shown = await stored(database, board, window, drive_id=drive_id)
                plain = expected(board, drive_id, delivery.newest, window, delivery.now, known[drive_id])
                assert shown == plain, (drive_id, board, window)
                for rank, (key, *_) in enumerate(plain, 1) if drive_id == DRIVE else ():
                    around = await stored_around(database, board, window, key)
                    first = max(1, rank - 1)
                    assert around == [
                        (first + n, one[0]) for n, one in enumerate(plain[first - 1 : first + 2])
                    ]
    async with database.reading() as session:
        assert await queries.differences(session) == []


@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries())
async def test_boards_equal_a_plain_sort(database: Database, delivery: Delivery) -> None:
    await check(database, delivery)


# One behaviour at a time.

HOUR = timedelta(hours=1)


def at(minutes: int, **other: Any) -> dict[str, Any]:
    """A donation captured so many minutes before noon."""
    return {"captured_at": NOON - timedelta(minutes=minutes), "donor_id": "dnr_a"} | other


async def test_donation_leaves_each_window_in_its_time(database: Database) -> None:
    await handle_events(database, drive(), *CREATED, payment("pay_1", 500, **at(0, creator_id="crt_a")))
    boards_of: dict[Board, str] = {"donors": "dnr_a", "creators": "crt_a", "teams": "Red"}
    moments: Sequence[tuple[timedelta, Window, bool]] = (
        (HOUR - timedelta(milliseconds=1), "1h", True),
        (HOUR, "1h", False),
        (HOUR, "24h", True),
        (24 * HOUR, "24h", False),
        (24 * HOUR, "all", True),
    )
    for later, window, there in moments:
        await sum_up(database, NOON + later)
        for board, key in boards_of.items():
            shown = await stored(database, board, window)
            assert shown == ([(key, 500, 1)] if there else []), (board, window, later)


async def test_payment_that_was_never_in_a_window_is_not_taken_out_of_it(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 500, **at(0)))
    await sum_up(database, NOON)
    await handle_events(database, payment("pay_2", 300, **at(30)))
    await sum_up(database, NOON + timedelta(minutes=45))
    assert await stored(database, "donors", "1h") == [("dnr_a", 500, 1)]


async def test_refund_lowers_the_window_of_its_donation_only(database: Database) -> None:
    old, new = at(70), at(10)
    await handle_events(database, drive(), payment("pay_1", 500, **old), payment("pay_2", 800, **new))
    await sum_up(database, NOON)
    assert await stored(database, "donors", "1h") == [("dnr_a", 800, 1)]
    await handle_events(database, payment("pay_1", 500, refunded=400, version=2, **old))
    await sum_up(database, NOON)
    assert await stored(database, "donors", "1h") == [("dnr_a", 800, 1)]
    assert await stored(database, "donors", "24h") == [("dnr_a", 900, 2)]
    await handle_events(database, payment("pay_2", 800, refunded=800, version=2, **new))
    await sum_up(database, NOON)
    assert await stored(database, "donors", "1h") == []
    assert await stored(database, "donors", "all") == [("dnr_a", 100, 1)]


async def test_refund_moves_a_donor_back_among_equals(database: Database) -> None:
    await handle_events(
        database,
        drive(),
        payment("pay_1", 500, **at(30)),
        payment("pay_2", 500, **at(20, donor_id="dnr_b")),
        payment("pay_3", 100, **at(10)),
    )
    await sum_up(database, NOON)
    assert [key for key, *_ in await stored(database, "donors")] == ["dnr_a", "dnr_b"]
    await handle_events(database, payment("pay_4", 100, **at(5, donor_id="dnr_b")))
    await sum_up(database, NOON)
    assert [key for key, *_ in await stored(database, "donors")] == ["dnr_a", "dnr_b"]
    # Without the gift of 10 minutes ago, the first donor reached 500 before the other reached 600 and 500.
    await handle_events(database, payment("pay_3", 100, refunded=100, version=2, **at(10)))
    await handle_events(database, payment("pay_4", 100, refunded=100, version=2, **at(5, donor_id="dnr_b")))
    await sum_up(database, NOON)
    async with database.reading() as session:
        reached = dict(map(tuple, await session.execute(select(donors.c.donor_id, donors.c.reached_at))))
    assert reached == {"dnr_a": NOON - timedelta(minutes=30), "dnr_b": NOON - timedelta(minutes=20)}


UNNAMED: Final = {
    "of a donor": {"donor_id": "dnr_a", "anonymous": True},
    "of nobody": {"donor_id": None},
}


@pytest.mark.parametrize("gift", UNNAMED.values(), ids=UNNAMED)
@pytest.mark.parametrize("is_of_earlier_version", [False, True])
async def test_unnamed_row_that_lost_a_gift_has_the_moment_of_the_others(
    database: Database, gift: dict[str, Any], is_of_earlier_version: bool
) -> None:
    """A process of an earlier version does not state the donor of what it replaces."""
    await handle_events(
        database,
        drive(),
        payment("pay_1", 500, **at(30, **gift)),
        payment("pay_2", 300, **at(10, **gift)),
        payment("pay_3", 900, **at(5)),
    )
    await sum_up(database, NOON)
    await handle_events(database, payment("pay_2", 300, refunded=300, version=2, **at(10, **gift)))
    if is_of_earlier_version:
        async with database.transaction() as session:
            await session.execute(update(superseded).values(donor_id=None))
    await sum_up(database, NOON)
    async with database.reading() as session:
        rows = await session.execute(
            select(donors.c.raised, donors.c.donations, donors.c.reached_at)
            .where(donors.c.donor_id != "dnr_a", donors.c.raised > 0)
        )  # fmt: skip
        assert list(map(tuple, rows)) == [(500, 1, NOON - timedelta(minutes=30))]
        assert (await session.execute(select(superseded))).all() == []


async def test_payment_is_not_summed_twice_when_its_state_changes_before_the_sums(database: Database) -> None:
    gift = at(10)
    await handle_events(database, drive(), payment("pay_1", 500, **gift))
    await handle_events(database, payment("pay_1", 500, refunded=200, version=2, **gift))
    await sum_up(database, NOON)
    assert await stored(database, "donors") == [("dnr_a", 300, 1)]
    await handle_events(database, payment("pay_1", 500, refunded=300, version=3, **gift))
    await handle_events(database, payment("pay_1", 500, refunded=100, version=4, **gift))
    await sum_up(database, NOON)
    assert await stored(database, "donors", "1h") == [("dnr_a", 400, 1)]
    async with database.reading() as session:
        assert (await session.execute(select(superseded))).all() == []


async def test_payments_of_an_earlier_versions_process_are_summed(database: Database) -> None:
    """During an upgrade such a process stores payments without numbers, and changes numbered ones."""
    await handle_events(
        database, drive(), payment("pay_1", 500, **at(10)), payment("pay_2", 300, **at(5, donor_id="dnr_b"))
    )
    await sum_up(database, NOON)
    async with database.transaction() as session:
        unknown = {"ranked_version": 0, "number": 0, "donor_key": None}
        await session.execute(update(payments).where(payments.c.payment_id == "pay_1").values(unknown))
        changed = {"version": 2, "refunded": 100}
        await session.execute(update(payments).where(payments.c.payment_id == "pay_2").values(changed))
    async with database.transaction() as session:
        found = await session.run_sync(starting_anew.have_summed_again)
    assert found == [DRIVE]
    await sum_up(database, NOON)
    assert await stored(database, "donors", "1h") == [("dnr_1", 500, 1), ("dnr_b", 200, 1)]


async def test_change_of_a_row_that_an_earlier_version_wrote_is_summed(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 500, **at(10)), payment("pay_2", 300, **at(5)))
    await sum_up(database, NOON)
    async with database.transaction() as session:
        changed = {"version": 2, "refunded": 100}
        await session.execute(update(payments).where(payments.c.payment_id == "pay_1").values(changed))
    await handle_events(database, payment("pay_1", 500, refunded=200, version=3, **at(10)))
    await sum_up(database, NOON)
    assert await stored(database, "donors", "24h") == [("dnr_a", 600, 2)]


async def test_sums_begin_anew_some_rows_at_a_time_while_payments_change(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "CLEARED_FOR_ADDED", 1)
    gifts = [payment(f"pay_{n}", **at(n, donor_id=f"dnr_{n}")) for n in range(7)]
    now = NOON + timedelta(hours=1)
    await handle_events(database, drive(), *gifts)
    await sum_up(database, now)
    again = update(drives).where(drives.c.drive_id == DRIVE).values(summed_number=NEVER_SUMMED)
    async with database.transaction() as session:
        await session.execute(again)
        assert not await session.run_sync(partial(bring_once, drive_id=DRIVE, now=now, most=2))
    gifts[0] = payment("pay_0", refunded=1000, version=2, **at(0, donor_id="dnr_0"))
    gifts.append(payment("pay_7", **at(7, donor_id="dnr_3")))
    await handle_events(database, gifts[0], gifts[-1])
    await sum_up(database, now, most=2)
    for window in get_args(Window):
        assert await stored(database, "donors", window) == expected("donors", DRIVE, gifts, window, now, "")


WRITTEN_BY_AN_EARLIER_VERSION: Final = {
    "changed": ({"refunded": 100}, {"refunded": 100}, [("dnr_a", 700, 2)]),
    "refunded in full": ({"refunded": 500}, {"refunded": 500}, [("dnr_a", 300, 1)]),
    "held": ({"counted": False}, {"held": True}, [("dnr_a", 300, 1)]),
    "refunded in full, and failed": ({"refunded": 500}, {}, [("dnr_a", 800, 2)]),
}


@pytest.mark.parametrize(
    ("stored_state", "next_state", "places"),
    WRITTEN_BY_AN_EARLIER_VERSION.values(),
    ids=WRITTEN_BY_AN_EARLIER_VERSION,
)
async def test_summed_state_that_an_earlier_version_replaced_is_no_longer_summed(
    database: Database, stored_state: dict[str, Any], next_state: dict[str, Any], places: list[Place]
) -> None:
    """Although the next state, which this version handles, adds the same as the stored one, or nothing."""
    await handle_events(database, drive(), payment("pay_1", 500, **at(10)), payment("pay_2", 300, **at(5)))
    await sum_up(database, NOON)
    async with database.transaction() as session:
        changed = {"version": 2} | stored_state
        await session.execute(update(payments).where(payments.c.payment_id == "pay_1").values(changed))
    await handle_events(database, payment("pay_1", 500, version=3, **next_state, **at(10)))
    async with database.transaction() as session:
        await session.run_sync(starting_anew.have_summed_again)
    await sum_up(database, NOON)
    assert await stored(database, "donors") == places
    assert await stored(database, "donors", "24h") == places


async def test_payment_that_is_refunded_before_it_is_added_leaves_no_moment(database: Database) -> None:
    """Although the moment of its donor was computed again in the meantime, because another was refunded."""
    early, late = at(30), at(10)
    await handle_events(database, drive(), payment("pay_1", 500, **early))
    await sum_up(database, NOON)
    await handle_events(database, payment("pay_2", 100, **at(20, donor_id="dnr_b")))
    await handle_events(database, payment("pay_3", 100, **late))
    await handle_events(database, payment("pay_1", 500, refunded=400, version=2, **early))
    async with database.transaction() as session:
        assert not await session.run_sync(bring_once, DRIVE, NOON, 1)
    await handle_events(database, payment("pay_3", 100, refunded=100, version=2, **late))
    await sum_up(database, NOON)
    assert await stored(database, "donors") == [("dnr_a", 100, 1), ("dnr_b", 100, 1)]


async def test_due_drives_are_those_that_lack_something(database: Database) -> None:
    async def due(now: datetime) -> list[str]:
        async with database.reading() as session:
            return await session.run_sync(lambda inner: standings.find_due(inner, now))

    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"))
    assert await due(NOON) == []
    await handle_events(database, payment("pay_1", 500, **at(0)))
    assert await due(NOON) == [DRIVE]
    await sum_up(database, NOON)
    assert await due(NOON + timedelta(minutes=59)) == []
    assert await due(NOON + HOUR) == [DRIVE]
    await sum_up(database, NOON + HOUR)
    assert await due(NOON + 2 * HOUR) == []
    assert await due(NOON + 24 * HOUR) == [DRIVE]
    await handle_events(database, payment("pay_1", 500, refunded=500, version=2, **at(0)))
    assert await due(NOON + 2 * HOUR) == [DRIVE]
    await sum_up(database, NOON + 2 * HOUR)
    assert await due(NOON + 24 * HOUR) == []
