"""New states of drives, creators and pledges.

Every event carries a complete state. A command compares it with the stored state and applies the difference,
so repeated, reordered and missing events do no harm. Each command returns the rows it logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backbone.contracts import (
    AlertsControlled,
    CreatorChanged,
    DriveChanged,
    DriveState,
    MessageModerated,
    PledgeStatus,
)
from backbone.contracts.open_values import known
from backbone.contracts.pledges import MessageState, PledgeState
from backbone.database.transaction import SyncTransaction
from services.leaderboard import domain, on_screen, sequencer
from services.leaderboard.logged_rows import LoggedRow
from services.leaderboard.sequencer import LockedDrive
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import NOT_FETCHED, pledges


def name_drives(transaction: SyncTransaction, events: Sequence[DriveChanged]) -> list[LoggedRow]:
    """Store names, goals and milestones of drives, and log their changes of state."""
    locked = sequencer.lock(transaction, (event.drive_id for event in events))
    named: dict[str, dict[str, Any]] = {}
    for event in sorted(events, key=lambda one: one.version):
        drive = locked[event.drive_id]
        if event.version > drive.version:
            named[event.drive_id] = _name(drive, event)
    if named:
        transaction.execute(statements(transaction).name_drives, [named[one] for one in sorted(named)])
    return sequencer.save(transaction, locked.values())


def _name(drive: LockedDrive, event: DriveChanged) -> dict[str, Any]:
    drive.settle_currency(event.currency)
    state = known(DriveState, event.state)
    for type_ in domain.moves(_state_before(drive), state):
        drive.log_state(type_, event.changed_at)
    # A state known only to a newer version of this service is not stored: later moves start from the last
    # known one.
    drive.version, drive.state, drive.changed = event.version, state or drive.state, True
    requested = [(one.title, one.amount.minor_units) for one in event.milestones]
    drive.milestones = domain.carry_over(drive.milestones, requested)
    drive.reach_milestones(event.changed_at)
    drive.note_moment(event.changed_at)
    return sequencer.placeholder_row(event.drive_id) | {
        "version": event.version,
        "state": drive.state,
        "slug": event.slug,
        "title": event.title,
        "goal": event.goal.minor_units,
        "test": event.test,
    }


def _state_before(drive: LockedDrive) -> DriveState | None:
    """The drive's last state; None where a newer version of this service stored one unknown here."""
    return known(DriveState, drive.state) if drive.state else DriveState.DRAFT


def name_creators(transaction: SyncTransaction, events: Sequence[CreatorChanged]) -> list[LoggedRow]:
    """Store names of creators. Rows may exist already, made by payments credited to them."""
    locked = sequencer.lock(transaction, (event.drive_id for event in events))
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
    transaction.execute(statements(transaction).name_creators, rows)
    for drive in locked.values():
        drive.changed = True
    return sequencer.save(transaction, locked.values())


def moderate_messages(transaction: SyncTransaction, events: Sequence[MessageModerated]) -> list[LoggedRow]:
    """Delete display texts that were hidden or held, have outdated ones fetched again, and note the pinned.

    The rows are changed in the order of their ids, as wherever several of them are.
    """
    locked = sequencer.lock(transaction, (event.drive_id for event in events))
    newest = domain.newest(events, lambda one: one.pledge_id)
    for event in sorted(newest, key=lambda one: one.pledge_id):
        decided = {"pledge_id": event.pledge_id, "name": None, "message": None, "decided": event.version}
        if event.state in (MessageState.APPROVED, MessageState.PINNED):
            row = decided | {"version": NOT_FETCHED}
            transaction.execute(statements(transaction).renew_display_texts, [row])
        else:
            # Hidden texts need not be fetched; of held ones, and of states of later versions, some are shown.
            row = decided | {"version": event.version - (event.state != MessageState.HIDDEN)}
            transaction.execute(statements(transaction).withdraw_display_texts, [row])
        on_screen.pin(transaction, event)
        locked[event.drive_id].changed = True
    return sequencer.save(transaction, locked.values())


def control_alerts(transaction: SyncTransaction, events: Sequence[AlertsControlled]) -> list[LoggedRow]:
    """Store how overlays of drives are to show alerts."""
    locked = sequencer.lock(transaction, (event.drive_id for event in events))
    for event in domain.newest(events, lambda one: one.drive_id):
        if on_screen.control(transaction, event):
            locked[event.drive_id].changed = True
    return sequencer.save(transaction, locked.values())


def keep_pledges(transaction: SyncTransaction, events: Sequence[PledgeState]) -> list[LoggedRow]:
    """Store pledges and keep the drive's `pledged`, the sum of open and unpaid ones."""
    fresh = domain.newest(events, lambda one: one.pledge_id)
    locked = sequencer.lock(transaction, (event.drive_id for event in fresh))
    known = by_id(transaction, pledges.c.pledge_id, [event.pledge_id for event in fresh])
    rows: list[dict[str, Any]] = []
    for event in fresh:
        old = known.get(event.pledge_id)
        if old is not None and old.version >= event.version:
            continue
        drive = locked[event.drive_id]
        amount = event.reporting_amount or event.amount
        drive.settle_currency(amount.currency)
        row = {
            "pledge_id": event.pledge_id,
            "drive_id": event.drive_id,
            "version": event.version,
            "open": event.status == PledgeStatus.OPEN,
            "paid": old is not None and old.paid,
            "amount": amount.minor_units,
        }
        before = old.amount if old is not None and old.open and not old.paid else 0
        after = amount.minor_units if row["open"] and not row["paid"] else 0
        drive.add(pledged=after - before)
        drive.note_moment(event.made_at)
        rows.append(row)
    if rows:
        transaction.execute(statements(transaction).keep_pledges, rows)
    return sequencer.save(transaction, locked.values())
