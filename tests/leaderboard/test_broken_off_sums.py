"""Transactions that change the boards' sums are broken off anywhere and repeated: no cent is lost or doubled.

The consumer's transaction numbers the payments, and adds them to creators and teams. The others add them to
the sums of donors, sources and windows, and take them out of windows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from backbone.clock import FrozenClock
from backbone.contracts import CreatorChanged, PaymentChanged
from backbone.contracts.pledges import Source
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.http.problems import Overloaded
from services.leaderboard import boards, queries, standings
from services.leaderboard.boards import Board, Window
from services.leaderboard.queries import DriveHead
from services.leaderboard.summing import Summing
from services.leaderboard.tables import MESSAGING_TABLES, NEVER_SUMMED, drives, payments, superseded
from tests.engines import fresh_postgres
from tests.leaderboard.broken_off import BreakableDatabase, Fault, Faults, Kind
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
from tests.leaderboard.test_boards import CREATED, OTHER, SPANS, TEAMS, Place, expected, histories
from tests.leaderboard.test_summing import summing

BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
Counted = PaymentChanged | CreatorChanged


class Store:
    """A database with faults, which the processes on it open anew when they are restarted."""

    def __init__(self, url: str) -> None:
        self.faults = Faults()
        self._url = url
        self.database = BreakableDatabase(url, MESSAGING_TABLES, self.faults)

    async def reopen(self) -> None:
        """Close every connection and forget what was prepared for them."""
        await self.database.close()
        self.database = BreakableDatabase(self._url, MESSAGING_TABLES, self.faults)


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'leaderboard.db'}"
        if request.param == "postgresql":
            url = await stack.enter_async_context(fresh_postgres())
        await stack.enter_async_context(open_database(tmp_path, url))
        opened = Store(url)
        yield opened
        await opened.database.close()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that begin anew are cleared as many rows at a time as payments are added."""
    monkeypatch.setattr(standings, "CLEARED_FOR_ADDED", 1)


@pytest.fixture(autouse=True)
def captured_logs() -> Iterator[None]:
    """Formatting the traceback of each permanent error would take longer than everything else."""
    with structlog.testing.capture_logs():
        yield


class Replicas:
    """Processes of leaderboard on one database with faults, and the states counted at each sequence."""

    def __init__(self, store: Store, most: int = 500) -> None:
        self.faults = store.faults
        self.clock = FrozenClock(NOON)
        self._store, self._most = store, most
        self._newest: dict[str, PaymentChanged] = {}
        self._teams = dict(TEAMS)
        self._at: defaultdict[tuple[str, int], list[list[PaymentChanged]]] = defaultdict(
            list, {(DRIVE, 0): [[]], (OTHER, 0): [[]]}
        )
        self._start()

    def _start(self) -> None:
        self.database = self._store.database
        self._workers = [self._new_worker(), self._new_worker()]

    def _new_worker(self) -> Summing:
        return summing(self.database, self.clock, most=self._most, rounds=200)

    async def restart(self) -> None:
        """End every process and start new ones, which know what is stored and nothing else."""
        await self._store.reopen()
        self._start()

    async def name_everything(self) -> None:
        """Have both drives and their creators named."""
        await handle_events(self.database, drive(), drive(drive_id=OTHER, slug="spring"), *CREATED)
        await self._remember(())

    async def deliver(self, events: Sequence[Counted]) -> None:
        """Handle a batch as the consumer does: again after a transient error, in halves after another."""
        pieces = [events] if events else []
        while pieces:
            piece = pieces.pop(0)
            error = await self.deliver_once(piece)
            if error is None:
                continue
            middle = 0 if is_transient(error) else len(piece) // 2
            pieces[:0] = [part for part in (piece[:middle], piece[middle:]) if part]

    async def deliver_once(self, events: Sequence[Counted]) -> Exception | None:
        """Handle a batch in one transaction; the error that a fault caused."""
        error = await self._attempt(handle_events(self.database, *events))
        if error is None:
            await self._remember(events)
        return error

    async def _remember(self, events: Sequence[Counted]) -> None:
        for event in events:
            if isinstance(event, CreatorChanged):
                self._teams[event.creator_id] = event.team
            elif (known := self._newest.get(event.payment_id)) is None or known.version < event.version:
                self._newest[event.payment_id] = event
        async with self.database.reading() as session:
            for row in await session.execute(select(drives.c.drive_id, drives.c.sequence)):
                self._at[row.drive_id, row.sequence].append(list(self._newest.values()))

    async def sum_once(self, worker: int = 0) -> None:
        """What a process does every second."""
        await self._attempt(self._workers[worker].sum_due())

    async def begin_anew(self) -> None:
        """Have the sums of a drive computed anew, as after an upgrade."""
        async with Database.transaction(self.database) as session:  # without faults
            of_drive = drives.c.drive_id == DRIVE
            await session.execute(update(drives).where(of_drive).values(summed_number=NEVER_SUMMED))

    async def read(self, drive_id: str) -> None:
        """What a read of a board does first. Gives up, as a client does, after an error."""
        await self._attempt(self._new_worker().up_to_date(drive_id, None))

    async def _attempt(self, work: Awaitable[Any]) -> Exception | None:
        """The error that a fault caused."""
        before = self.faults.happened
        try:
            await work
        except Exception as error:
            if self.faults.happened == before:
                raise
            return error
        return None

    async def assert_complete(self) -> None:
        """Once nothing fails any more, every board is complete after a second."""
        self.faults.arm(())
        await self.sum_once()
        async with self.database.reading() as session:
            assert await session.run_sync(standings.find_due, self.clock.now()) == []
            assert (await session.execute(select(superseded))).all() == []
            assert await queries.differences(session) == []
        for drive_id in (DRIVE, OTHER):
            await self._assert_exact(drive_id, self.clock.now())

    async def assert_exact(self) -> None:
        """Every board is that of the sequence it names, up to the edge its window has."""
        for drive_id in (DRIVE, OTHER):
            await self._assert_exact(drive_id, None)

    async def _assert_exact(self, drive_id: str, now: datetime | None) -> None:
        row, shown = await self._boards(drive_id)
        head = DriveHead(*(getattr(row, name) for name in DriveHead._fields))
        try:
            named = head.sequence_of_sums()
        except Overloaded:
            assert now is None  # a part of what is new is added: such sums are not shown
            named = -1
        edges = {"all": BEGINNING, "24h": row.day_from or BEGINNING, "1h": row.hour_from or BEGINNING}
        for (board, window), places in shown.items():
            sequence = head.sequence if boards.is_immediate(board, window) else named
            if sequence < 0:
                continue
            moment = now or edges[window] + SPANS[window]
            possible = [
                expected(board, drive_id, states, window, moment, row.alias_salt or "", self._teams)
                for states in self._at[drive_id, sequence]
            ]
            if board in ("creators", "teams") and sequence != head.sequence:
                # The moments by which equals are ranked are those of the newest sequence.
                assert sorted(places) in map(sorted, possible), (drive_id, board, window, sequence)
                continue
            assert places in possible, (drive_id, board, window, sequence)
            if now is not None:
                assert places == possible[-1], (drive_id, board, window)

    async def _boards(self, drive_id: str) -> tuple[Any, dict[tuple[Board, Window], list[Place]]]:
        shown: dict[tuple[Board, Window], list[Place]] = {}
        async with self.database.reading() as session:
            of_drive = select(drives).where(drives.c.drive_id == drive_id)
            row = (await session.execute(of_drive)).one()
            for board in get_args(Board):
                for window in get_args(Window):
                    found = await session.run_sync(boards.top, drive_id, board, window, 100)
                    shown[board, window] = [(each.key, each.raised, each.donations) for each in found.rows]
        return row, shown


async def started(store: Store, most: int = 500) -> Replicas:
    """Processes on an empty database, which have handled the names."""
    store.faults.arm(())
    await empty(store.database)
    processes = Replicas(store, most)
    await processes.name_everything()
    return processes


# Any sequence, broken off anywhere.

Action = Literal["nothing", "sum", "read", "at once", "anew", "restart"]
ACTIONS: Final[Sequence[Action]] = ("sum", "sum", "read", "at once", "anew", "restart", "nothing")


class Step(NamedTuple):
    """Events are delivered, and something is done afterwards or meanwhile, so many minutes later."""

    minutes: int
    events: Sequence[Counted]
    action: Action


class Course(NamedTuple):
    """What happens to two drives, and which transactions are broken off where."""

    steps: Sequence[Step]
    faults: Sequence[Fault]
    most: int


@st.composite
def courses(draw: st.DrawFn) -> Course:
    events: list[Counted] = [
        event for number in range(draw(st.integers(1, 6))) for event in draw(histories(number))
    ]
    moved = draw(st.sets(st.sampled_from(["crt_a", "crt_b"])))
    events += [creator(one, one[-1], version=2, team=draw(st.sampled_from(["Blue", None]))) for one in moved]
    order = draw(st.permutations(events))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), min_size=2, max_size=5)))
    steps = [
        Step(
            draw(st.sampled_from([0, 0, 1, 30, 61, 1440])),
            order[start:end],
            draw(st.sampled_from(ACTIONS)),
        )
        for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)
    ]
    faults = st.lists(st.builds(Fault, st.integers(1, 30), st.sampled_from(Kind)), min_size=4, max_size=12)
    return Course(steps, draw(faults), draw(st.sampled_from([1, 2, 500])))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(courses())
async def test_boards_are_exact_after_transactions_that_were_broken_off(store: Store, course: Course) -> None:
    running = await started(store, course.most)
    running.faults.arm(course.faults)
    for step in course.steps:
        await take(step, running)
    await running.assert_complete()


async def take(step: Step, running: Replicas) -> None:
    running.clock.move(step.minutes * 60)
    if step.action == "at once":
        await asyncio.gather(
            running.sum_once(0), running.deliver(step.events), running.sum_once(1), running.read(DRIVE)
        )
    else:
        await running.deliver(step.events)
    match step.action:
        case "sum":
            await running.sum_once()
        case "anew":
            await running.begin_anew()
            await running.sum_once()
        case "read":
            await running.read(DRIVE)
            await running.read(OTHER)
        case "restart":
            await running.restart()
    await running.assert_exact()


# Each statement of a transaction in turn.

GIFTS: Final[Sequence[dict[str, Any]]] = (
    {"donor_id": "dnr_a", "creator_id": "crt_a", "source": Source(platform="youtube")},
    {"donor_id": "dnr_a", "creator_id": "crt_c", "anonymous": True},
    {"donor_id": None, "creator_id": None, "source": Source(campaign="night")},
)


def gifts(version: int, first: int = 0, minutes: int = 10, **other: Any) -> list[PaymentChanged]:
    """A version of three payments, captured so many minutes before noon."""
    at = NOON - timedelta(minutes=minutes)
    return [
        payment(f"pay_{first + n}", 500, version=version, captured_at=at, **gift | other)
        for n, gift in enumerate(GIFTS)
    ]


async def break_everywhere(running: Replicas, kind: Kind, act: Callable[[], Awaitable[None]]) -> int:
    """Do `act` with a fault after its first statement, then after its second, until it is done without.

    Returns in how many places it was broken off.
    """
    for place in count(1):
        before = running.faults.happened
        running.faults.arm([Fault(place, kind)])
        await act()
        if running.faults.happened == before:
            return place - 1
        await running.assert_exact()
    raise AssertionError


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.CUT], ids=["error", "cut"])
async def test_sums_are_exact_wherever_their_transaction_is_broken_off(store: Store, kind: Kind) -> None:
    """It subtracts replaced states, takes payments out of both windows, and adds payments."""
    running = await started(store)
    await running.deliver([*gifts(1), *gifts(1, first=3, minutes=50), *gifts(1, first=6, minutes=1439)])
    await running.sum_once()
    await running.deliver([*gifts(2, refunded=100), *gifts(1, first=9, minutes=0)])
    running.clock.move(15 * 60)
    assert await break_everywhere(running, kind, running.sum_once) > 20
    running.faults.arm([Fault(1, Kind.LOST_ANSWER)])
    await running.deliver(gifts(3, refunded=200))
    await running.sum_once()
    await running.assert_complete()


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.CUT], ids=["error", "cut"])
async def test_event_is_counted_once_wherever_its_transaction_is_broken_off(store: Store, kind: Kind) -> None:
    """It notes states that are in the sums, moves a payment to another drive, and counts a new one."""
    running = await started(store)
    await running.deliver(gifts(1))
    await running.sum_once()
    refunded, moved, _ = gifts(2, refunded=100)
    moved = moved.model_copy(update={"drive_id": OTHER, "creator_id": "crt_e"})
    batch = [refunded, moved, *gifts(1, first=3)]

    async def deliver_once() -> None:
        await running.deliver_once(batch)

    assert await break_everywhere(running, kind, deliver_once) > 8
    await running.assert_complete()


async def test_sums_are_computed_anew_wherever_that_is_broken_off(store: Store) -> None:
    """A process that starts during an upgrade finds payments that one of an earlier version counted."""
    running = await started(store)
    await running.deliver(gifts(1))
    await running.sum_once()
    await running.deliver(gifts(1, first=3))
    async with store.database.transaction() as session:
        counted_now = payments.c.number > len(GIFTS)
        await session.execute(update(payments).where(counted_now).values(number=0, ranked_version=0))
    await running.restart()
    assert await break_everywhere(running, Kind.ERROR, running.sum_once) > 5  # while they are numbered
    await running.assert_complete()
    await running.begin_anew()
    assert await break_everywhere(running, Kind.ERROR, running.sum_once) > 10
    await running.assert_complete()


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.CUT], ids=["error", "cut"])
async def test_sums_are_computed_anew_a_row_at_a_time_wherever_that_is_broken_off(
    store: Store, kind: Kind
) -> None:
    """Between the pieces another process sums, states that were summed are replaced, and windows slide."""
    running = await started(store, most=1)
    await running.deliver([*gifts(1), *gifts(1, first=3, minutes=55)])
    await running.sum_once()
    await running.deliver(gifts(2, refunded=100))
    await running.begin_anew()
    versions = count(2)

    async def sum_and_refund() -> None:
        await running.sum_once()
        running.clock.move(20)
        version = next(versions)
        refunds = gifts(version, first=3, minutes=55, refunded=version)
        await running.deliver_once([refunds[version % 3]])

    assert await break_everywhere(running, kind, sum_and_refund) > 20
    await running.assert_complete()
