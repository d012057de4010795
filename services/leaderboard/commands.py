"""Changes of names and promises: new states of drives, creators and pledges.

Each gets absolute states, compares them with the rows kept of the old ones and applies new minus
old, so that repeats, reorders and gaps heal. Each answers with the rows it logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from backbone.contracts import CreatorChanged, DriveChanged, DriveLogged, DriveState, PledgeStatus
from backbone.contracts.open_values import known
from backbone.contracts.pledges import PledgeState
from services.leaderboard import domain, sequencer
from services.leaderboard.sequencer import Board
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import pledges


def name_drives(connection: Connection, events: Sequence[DriveChanged]) -> list[DriveLogged]:
    """Give drives their names, goals and milestones, and log where they moved."""
    boards = sequencer.lock(connection, (event.drive_id for event in events))
    named: dict[str, dict[str, Any]] = {}
    for event in sorted(events, key=lambda one: one.version):
        board = boards[event.drive_id]
        if event.version > board.version:
            named[event.drive_id] = _name(board, event)
    if named:
        connection.execute(statements(connection).name_drives, [named[one] for one in sorted(named)])
    return sequencer.save(connection, boards.values())


def _name(board: Board, event: DriveChanged) -> dict[str, Any]:
    board.settle_currency(event.currency)
    state = known(DriveState, event.state)
    for type_ in domain.moves(_state_before(board), state):
        board.log_state(type_, event.changed_at)
    # Of a state that only a newer version knows the last one before it is kept: rows follow from that.
    board.version, board.state, board.changed = event.version, state or board.state, True
    wished = [(one.title, one.amount.minor_units) for one in event.milestones]
    board.milestones = domain.carry_over(board.milestones, wished)
    board.reach_milestones(event.changed_at)
    board.happened(event.changed_at)
    return sequencer.bare(event.drive_id) | {
        "version": event.version,
        "state": board.state,
        "slug": event.slug,
        "title": event.title,
        "goal": event.goal.minor_units,
        "test": event.test,
    }


def _state_before(board: Board) -> DriveState | None:
    """The drive's last known state; None where a process of a newer version stored one that is not."""
    return known(DriveState, board.state) if board.state else DriveState.DRAFT


def name_creators(connection: Connection, events: Sequence[CreatorChanged]) -> list[DriveLogged]:
    """Give creators their names; what they raised may have come first."""
    boards = sequencer.lock(connection, (event.drive_id for event in events))
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
    connection.execute(statements(connection).name_creators, rows)
    for board in boards.values():
        board.changed = True
    return sequencer.save(connection, boards.values())


def keep_pledges(connection: Connection, events: Sequence[PledgeState]) -> list[DriveLogged]:
    """Keep what is promised: `pledged` is what is open and unpaid."""
    fresh = domain.newest(events, lambda one: one.pledge_id)
    boards = sequencer.lock(connection, (event.drive_id for event in fresh))
    known = by_id(connection, pledges.c.pledge_id, [event.pledge_id for event in fresh])
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
        connection.execute(statements(connection).keep_pledges, rows)
    return sequencer.save(connection, boards.values())
