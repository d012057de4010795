"""The event door: what each fact changes of what is shown.

Every handler gets the newest absolute states, compares them with the rows kept of the old ones and
applies new minus old, so that repeats, reorders and gaps heal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.consumer import Handlers
from backbone.contracts import (
    CreatorChanged,
    DriveChanged,
    DriveState,
    PaymentChanged,
    PledgeChanged,
    PledgeMade,
    PledgeStatus,
)
from backbone.contracts.pledges import PledgeState
from services.leaderboard import domain, sequencer
from services.leaderboard.domain import NOTHING, Figures, Milestone
from services.leaderboard.sequencer import Board
from services.leaderboard.tables import clearings, creators, donors, drives, payments, pledges
from services.leaderboard.upsert import add_to, insert_into, replace_in


async def name_drives(events: Sequence[DriveChanged], session: AsyncSession) -> None:
    """Give drives their names, goals and milestones, and log where they moved."""
    boards = await sequencer.lock(session, (event.drive_id for event in events))
    named: dict[str, dict[str, Any]] = {}
    for event in sorted(events, key=lambda one: one.version):
        board = boards[event.drive_id]
        if event.version > board.version:
            named[event.drive_id] = _name(board, event)
    if named:
        await session.execute(replace_in(session, drives, _NAMED), [named[one] for one in sorted(named)])
        await sequencer.save(session, boards.values())


_NAMED: Final = ("version", "state", "slug", "title", "goal", "test")


def _name(board: Board, event: DriveChanged) -> dict[str, Any]:
    board.settle_currency(event.currency)
    old = DriveState(board.state) if board.state else DriveState.DRAFT
    for type_ in domain.moves(old, event.state):
        board.log_state(type_, event.changed_at)
    board.version, board.state, board.changed = event.version, event.state, True
    wished = [Milestone(one.title, one.amount.minor_units) for one in event.milestones]
    board.milestones = domain.carry_over(board.milestones, wished)
    board.reach_milestones(event.changed_at)
    board.happened(event.changed_at)
    return sequencer.bare(event.drive_id) | {
        "version": event.version,
        "state": event.state,
        "slug": event.slug,
        "title": event.title,
        "goal": event.goal.minor_units,
        "test": event.test,
    }


async def name_creators(events: Sequence[CreatorChanged], session: AsyncSession) -> None:
    """Give creators their names; what they raised may have come first."""
    boards = await sequencer.lock(session, (event.drive_id for event in events))
    named = insert_into(session, creators)
    new = {column: named.excluded[column] for column in ("version", "slug", "name", "team")}
    statement = named.on_conflict_do_update(
        index_elements=[creators.c.creator_id], set_=new, where=creators.c.version < named.excluded.version
    )
    rows = [
        {
            "creator_id": event.creator_id,
            "drive_id": event.drive_id,
            "version": event.version,
            "slug": event.slug,
            "name": event.name,
            "team": event.team,
            "raised": 0,
            "donations": 0,
        }
        for event in sorted(domain.newest(events, lambda one: one.creator_id), key=lambda one: one.creator_id)
    ]
    await session.execute(statement, rows)
    for board in boards.values():
        board.changed = True
    await sequencer.save(session, boards.values())


async def keep_pledges(events: Sequence[PledgeState], session: AsyncSession) -> None:
    """Keep what is promised: `pledged` is what is open and unpaid."""
    fresh = domain.newest(events, lambda one: one.pledge_id)
    boards = await sequencer.lock(session, (event.drive_id for event in fresh))
    known = await _by_id(session, pledges.c.pledge_id, [event.pledge_id for event in fresh])
    rows: list[dict[str, Any]] = []
    for event in fresh:
        old = known.get(event.pledge_id)
        if old is not None and old.version >= event.version:
            continue
        board = boards[event.drive_id]
        board.settle_currency(event.amount.currency)
        row = {
            "pledge_id": event.pledge_id,
            "drive_id": event.drive_id,
            "version": event.version,
            "open": event.status == PledgeStatus.OPEN,
            "paid": old is not None and old.paid,
            "amount": event.amount.minor_units,
        }
        before = old.amount if old is not None and old.open and not old.paid else 0
        after = event.amount.minor_units if row["open"] and not row["paid"] else 0
        board.add(pledged=after - before)
        board.happened(event.made_at)
        rows.append(row)
    if rows:
        await session.execute(replace_in(session, pledges, ("version", "open", "amount")), rows)
        await sequencer.save(session, boards.values())


class _Sums:
    """What a batch of payments changes of the tables around the drives."""

    def __init__(self) -> None:
        self.clearings: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.creators: dict[str, dict[str, Any]] = {}
        self.donors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.paid: list[tuple[str, str]] = []

    def credit(self, creator_id: str, drive_id: str, raised: int, donations: int, at: datetime) -> None:
        row = self.creators.setdefault(
            creator_id,
            {"creator_id": creator_id, "drive_id": drive_id, "version": 0, "raised": 0, "donations": 0,
             "reached_at": at},
        )  # fmt: skip
        row["raised"] += raised
        row["donations"] += donations
        row["reached_at"] = max(row["reached_at"], at)


async def tally_payments(events: Sequence[PaymentChanged], session: AsyncSession) -> None:
    """Apply each payment's new state minus its old one to its drive, one statement a table."""
    fresh = domain.newest(events, lambda one: one.payment_id)
    boards = await sequencer.lock(session, (event.drive_id for event in fresh))
    known = await _by_id(session, payments.c.payment_id, [event.payment_id for event in fresh])
    sums = _Sums()
    rows = [
        row
        for event in fresh
        if (row := _tally(event, known.get(event.payment_id), boards[event.drive_id], sums)) is not None
    ]
    if not rows:
        return
    rows.sort(key=lambda row: str(row["payment_id"]))
    await session.execute(replace_in(session, payments, _REPLACED), rows)
    await _clear(session, sums)
    await _credit_creators(session, sums)
    await _count_donors(session, sums, boards)
    await _mark_paid(session, sums, boards)
    await sequencer.save(session, boards.values())


_REPLACED: Final = (
    "version",
    "pledge_id",
    "creator_id",
    "donor_id",
    "counted",
    "currency",
    "captured",
    "refunded",
    "disputed",
)


def _tally(event: PaymentChanged, old: Row[Any] | None, board: Board, sums: _Sums) -> dict[str, Any] | None:
    """The payment's new row, None where nothing is new; what it changes goes to `board` and `sums`."""
    figures = Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)
    if old is None and figures == NOTHING:
        return None  # no money moved yet: whatever comes later is applied to nothing just the same
    if old is not None and old.version >= event.version:
        return None
    if not event.held and board.currency is None:
        board.settle_currency(event.captured.currency)
    row = {
        "payment_id": event.payment_id,
        "drive_id": event.drive_id,
        "version": event.version,
        "pledge_id": event.pledge_id,
        "creator_id": event.creator_id,
        "donor_id": event.donor_id,
        "counted": not event.held and event.captured.currency == board.currency,
        "currency": event.captured.currency,
        **figures._asdict(),
    }
    _apply(event, old, row, board, sums)
    return row


def _apply(
    event: PaymentChanged, old: Row[Any] | None, row: dict[str, Any], board: Board, sums: _Sums
) -> None:
    figures = Figures(row["captured"], row["refunded"], row["disputed"])
    was = NOTHING if old is None else Figures(old.captured, old.refunded, old.disputed)
    now_counted = figures if row["counted"] else NOTHING
    was_counted = was if old is not None and old.counted else NOTHING
    if old is not None:
        _clearing(sums, board, (old.drive_id, old.currency), was, was_counted, -1)
    _clearing(sums, board, (event.drive_id, row["currency"]), figures, now_counted, 1)
    change = now_counted.since(was_counted)
    for type_, moved in domain.changes(change):
        board.log_money(type_, moved, event)
    gifts = int(now_counted.net > 0) - int(was_counted.net > 0)
    board.add(captured=change.captured, refunded=change.refunded, disputed=change.disputed, donations=gifts)
    if old is not None:
        _attribute(sums, board, old.creator_id, old.donor_id, was_counted, -1, event.changed_at)
    _attribute(sums, board, event.creator_id, event.donor_id, now_counted, 1, event.changed_at)
    board.happened(event.changed_at)
    if event.pledge_id is not None and figures.captured > 0 and (was.captured == 0 or _moved(old, event)):
        sums.paid.append((event.pledge_id, event.drive_id))


def _moved(old: Row[Any] | None, event: PaymentChanged) -> bool:
    return old is not None and old.pledge_id != event.pledge_id


def _clearing(
    sums: _Sums, board: Board, key: tuple[str, str], figures: Figures, counted: Figures, sign: int
) -> None:
    held = figures.net - counted.net
    sums.clearings[key][0] += sign * figures.net
    sums.clearings[key][1] += sign * held
    board.changed = board.changed or held != 0


def _attribute(
    sums: _Sums,
    board: Board,
    creator_id: str | None,
    donor_id: str | None,
    counted: Figures,
    sign: int,
    at: datetime,
) -> None:
    gift = int(counted.net > 0)
    if creator_id is not None and counted != NOTHING:
        sums.credit(creator_id, board.drive_id, sign * counted.net, sign * gift, at)
    if donor_id is not None:
        sums.donors[board.drive_id, donor_id] += sign * counted.net
    else:
        board.add(donors=sign * gift)


async def _clear(session: AsyncSession, sums: _Sums) -> None:
    rows = [
        {"drive_id": drive_id, "currency": currency, "net": net, "held": held}
        for (drive_id, currency), (net, held) in sorted(sums.clearings.items())
        if net or held
    ]
    if rows:
        await session.execute(add_to(session, clearings, ("net", "held")), rows)


async def _credit_creators(session: AsyncSession, sums: _Sums) -> None:
    if not sums.creators:
        return
    made = insert_into(session, creators)
    later = func.max if session.get_bind().dialect.name == "sqlite" else func.greatest
    new = {
        "raised": creators.c.raised + made.excluded.raised,
        "donations": creators.c.donations + made.excluded.donations,
        "reached_at": later(
            func.coalesce(creators.c.reached_at, made.excluded.reached_at), made.excluded.reached_at
        ),
    }
    statement = made.on_conflict_do_update(index_elements=[creators.c.creator_id], set_=new)
    await session.execute(statement, [sums.creators[one] for one in sorted(sums.creators)])


async def _count_donors(session: AsyncSession, sums: _Sums, boards: dict[str, Board]) -> None:
    """Donors are counted as their net rises above 0 and falls back."""
    rows = [
        {"drive_id": drive_id, "donor_id": donor_id, "net": net}
        for (drive_id, donor_id), net in sorted(sums.donors.items())
        if net
    ]
    if not rows:
        return
    added = add_to(session, donors, ("net",))
    returned = added.returning(donors.c.drive_id, donors.c.donor_id, donors.c.net)
    for row in await session.execute(returned, rows):
        before = row.net - sums.donors[row.drive_id, row.donor_id]
        boards[row.drive_id].add(donors=int(row.net > 0) - int(before > 0))


async def _mark_paid(session: AsyncSession, sums: _Sums, boards: dict[str, Board]) -> None:
    """A pledge whose money came is no longer `pledged`, whichever of the two was heard first."""
    if not sums.paid:
        return
    rows = [
        {"pledge_id": pledge_id, "drive_id": drive_id, "version": 0, "open": False, "paid": True, "amount": 0}
        for pledge_id, drive_id in sorted(set(sums.paid))
    ]
    made = insert_into(session, pledges)
    statement = made.on_conflict_do_update(
        index_elements=[pledges.c.pledge_id], set_={"paid": True}, where=pledges.c.paid.is_(False)
    )
    returned = await session.execute(
        statement.returning(pledges.c.drive_id, pledges.c.open, pledges.c.amount), rows
    )
    for row in returned:
        if row.open:
            boards[row.drive_id].add(pledged=-row.amount)


async def _by_id(session: AsyncSession, column: Any, ids: Iterable[str]) -> dict[str, Row[Any]]:
    rows = await session.execute(select(column.table).where(column.in_(list(ids))))
    return {getattr(row, column.name): row for row in rows}


HANDLERS: Final[Handlers] = {
    DriveChanged: name_drives,
    CreatorChanged: name_creators,
    PledgeMade: keep_pledges,
    PledgeChanged: keep_pledges,
    PaymentChanged: tally_payments,
}
