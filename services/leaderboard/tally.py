"""Counting: a payment's new state minus its old one, carried to every row it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from backbone.contracts import DriveLogged, PaymentChanged
from services.leaderboard import domain, sequencer
from services.leaderboard.domain import NOTHING, Figures
from services.leaderboard.sequencer import Board
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import payments


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


def tally_payments(connection: Connection, events: Sequence[PaymentChanged]) -> list[DriveLogged]:
    """Apply each payment's new state minus its old one to its drive, one statement a table."""
    fresh = domain.newest(events, lambda one: one.payment_id)
    boards = sequencer.lock(connection, (event.drive_id for event in fresh))
    known = by_id(connection, payments.c.payment_id, [event.payment_id for event in fresh])
    sums = _Sums()
    rows = [
        row
        for event in fresh
        if (row := _tally(event, known.get(event.payment_id), boards[event.drive_id], sums)) is not None
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: str(row["payment_id"]))
    connection.execute(statements(connection).keep_payments, rows)
    _clear(connection, sums)
    _credit_creators(connection, sums)
    _count_donors(connection, sums, boards)
    _mark_paid(connection, sums, boards)
    return sequencer.save(connection, boards.values())


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


def _clear(connection: Connection, sums: _Sums) -> None:
    rows = [
        {"drive_id": drive_id, "currency": currency, "net": net, "held": held}
        for (drive_id, currency), (net, held) in sorted(sums.clearings.items())
    ]
    connection.execute(statements(connection).add_to_clearings, rows)


def _credit_creators(connection: Connection, sums: _Sums) -> None:
    if not sums.creators:
        return
    rows = [sums.creators[one] for one in sorted(sums.creators)]
    connection.execute(statements(connection).credit_creators, rows)


def _count_donors(connection: Connection, sums: _Sums, boards: dict[str, Board]) -> None:
    """Donors are counted as their net rises above 0 and falls back."""
    rows = [
        {"drive_id": drive_id, "donor_id": donor_id, "net": net}
        for (drive_id, donor_id), net in sorted(sums.donors.items())
        if net
    ]
    if not rows:
        return
    for row in connection.execute(statements(connection).add_to_donors, rows):
        before = row.net - sums.donors[row.drive_id, row.donor_id]
        boards[row.drive_id].add(donors=int(row.net > 0) - int(before > 0))


def _mark_paid(connection: Connection, sums: _Sums, boards: dict[str, Board]) -> None:
    """A pledge whose money came is no longer `pledged`, whichever of the two was heard first."""
    if not sums.paid:
        return
    rows = [
        {"pledge_id": pledge_id, "drive_id": drive_id, "version": 0, "open": False, "paid": True, "amount": 0}
        for pledge_id, drive_id in sorted(set(sums.paid))
    ]
    returned = connection.execute(statements(connection).mark_paid, rows)
    for row in returned:
        if row.open:
            boards[row.drive_id].add(pledged=-row.amount)
