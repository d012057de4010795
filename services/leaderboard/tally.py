"""Counting: a payment's new state minus its old one, carried to every row it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from backbone.contracts import DriveLogged, PaymentChanged
from services.leaderboard import domain, sequencer
from services.leaderboard.domain import NOTHING, Figures
from services.leaderboard.sequencer import Board
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import payments


class Overtaken(RuntimeError):
    """Another process tallied a first state of the same payment meanwhile; tried again, this is no error."""


class _Sums:
    """What a batch of payments changes of the tables around the drives."""

    def __init__(self) -> None:
        self.clearings: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.creators: dict[str, dict[str, Any]] = {}
        self.donors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.paid: list[tuple[str, str]] = []
        self.reached_again: set[str] = set()
        """Creators of whom a gift no longer counts, or at another moment."""

    def credit(
        self, creator_id: str, drive_id: str, raised: int, donations: int, at: datetime | None = None
    ) -> None:
        """Add to a creator; `at` is when the gift was captured, of one that counts."""
        row = self.creators.setdefault(
            creator_id,
            {"creator_id": creator_id, "drive_id": drive_id, "version": 0, "raised": 0, "donations": 0,
             "reached_at": None},
        )  # fmt: skip
        row["raised"] += raised
        row["donations"] += donations
        if at is not None:
            row["reached_at"] = max(row["reached_at"] or at, at)


class _State(NamedTuple):
    """What a state of a payment counts, and for whom."""

    drive_id: str
    currency: str
    creator_id: str | None
    donor_id: str | None
    figures: Figures
    counted: Figures
    captured_at: datetime | None

    @property
    def reached(self) -> tuple[str, datetime | None] | None:
        """The creator it is a gift to, and when; None while it is none."""
        is_gift = self.creator_id is not None and self.counted.net > 0
        return (self.creator_id, self.captured_at) if is_gift and self.creator_id else None


def tally_payments(connection: Connection, events: Sequence[PaymentChanged]) -> list[DriveLogged]:
    """Apply each payment's new state minus its old one to its drive, one statement a table.

    A payment that changed drive is taken from the old one and counted in the new one. Raises `Overtaken`.
    """
    fresh = domain.newest(events, lambda one: one.payment_id)
    # Before the drives: which ones those are, the payments say. Every tally locks in this order.
    known = by_id(connection, payments.c.payment_id, [event.payment_id for event in fresh], lock=True)
    boards = sequencer.lock(
        connection, [*(event.drive_id for event in fresh), *(row.drive_id for row in known.values())]
    )
    sums = _Sums()
    rows = [
        row
        for event in fresh
        if (row := _tally(event, known.get(event.payment_id), boards, sums)) is not None
    ]
    if not rows:
        return []
    _keep(connection, sorted(rows, key=lambda row: str(row["payment_id"])), known)
    _clear(connection, sums)
    _credit_creators(connection, sums)
    _count_donors(connection, sums, boards)
    _mark_paid(connection, sums, boards)
    read_here = {event.drive_id for event in fresh}
    changed = {drive_id for drive_id, board in boards.items() if board.entries or board.changed}
    sequencer.ask_to_publish(connection, changed - read_here)
    return sequencer.save(connection, boards.values())


def _tally(
    event: PaymentChanged, old: Row[Any] | None, boards: Mapping[str, Board], sums: _Sums
) -> dict[str, Any] | None:
    """The payment's new row, None where nothing is new; what it changes goes to `boards` and `sums`."""
    figures = Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)
    if old is None and figures == NOTHING:
        return None  # no money moved yet: whatever comes later is applied to nothing just the same
    if old is not None and old.version >= event.version:
        return None
    board = boards[event.drive_id]
    if not event.held and board.currency is None:
        board.settle_currency(event.captured.currency)
    counted = not event.held and event.captured.currency == board.currency
    new = _State(
        event.drive_id, event.captured.currency, event.creator_id, event.donor_id,
        figures, figures if counted else NOTHING, event.captured_at or event.changed_at,
    )  # fmt: skip
    _apply(event, None if old is None else _state_of(old), new, boards, sums)
    if event.pledge_id is not None and figures.captured > 0 and _pays(old, event.pledge_id):
        sums.paid.append((event.pledge_id, event.drive_id))
    return {
        "payment_id": event.payment_id,
        "drive_id": event.drive_id,
        "version": event.version,
        "pledge_id": event.pledge_id,
        "creator_id": event.creator_id,
        "donor_id": event.donor_id,
        "counted": counted,
        "currency": new.currency,
        "captured_at": new.captured_at,
        **figures._asdict(),
    }


def _state_of(row: Row[Any]) -> _State:
    figures = Figures(row.captured, row.refunded, row.disputed)
    return _State(
        row.drive_id, row.currency, row.creator_id, row.donor_id,
        figures, figures if row.counted else NOTHING, row.captured_at,
    )  # fmt: skip


def _apply(
    event: PaymentChanged, old: _State | None, new: _State, boards: Mapping[str, Board], sums: _Sums
) -> None:
    """Carry a payment's new state minus its old one to everything it touches."""
    if old is None or old.drive_id != new.drive_id:
        was = NOTHING
        if old is not None:
            _move(event, old.counted, NOTHING, boards[old.drive_id])
    else:
        was = old.counted
    _move(event, was, new.counted, boards[new.drive_id])
    if old is not None:
        _attribute(sums, boards[old.drive_id], old, -1)
    _attribute(sums, boards[new.drive_id], new, 1)
    if old is not None and old.reached != new.reached:
        boards[new.drive_id].changed = True  # leaders may stand otherwise although no figure moved
        if old.reached is not None:
            sums.reached_again.add(old.reached[0])


def _move(event: PaymentChanged, was: Figures, now: Figures, board: Board) -> None:
    """Log what a payment that counted `was` in a drive and now counts `now` changes of it, and add it."""
    change = now.since(was)
    board.log_money(domain.changes(was, now), event)
    gifts = int(now.net > 0) - int(was.net > 0)
    board.add(captured=change.captured, refunded=change.refunded, disputed=change.disputed, donations=gifts)
    board.happened(event.changed_at)


def _pays(old: Row[Any] | None, pledge_id: str) -> bool:
    """Whether a captured payment has not yet been noted as its pledge's."""
    return old is None or old.captured == 0 or old.pledge_id != pledge_id


def _attribute(sums: _Sums, board: Board, state: _State, sign: int) -> None:
    """Add a state of a payment to the clearing, the creator and the donor, or take it away."""
    held = state.figures.net - state.counted.net
    clearing = sums.clearings[state.drive_id, state.currency]
    clearing[0] += sign * state.figures.net
    clearing[1] += sign * held
    board.changed = board.changed or held != 0
    gift = int(state.counted.net > 0)
    if state.creator_id is not None and state.counted != NOTHING:
        at = state.captured_at if gift and sign > 0 else None
        sums.credit(state.creator_id, state.drive_id, sign * state.counted.net, sign * gift, at)
    if state.donor_id is not None:
        sums.donors[state.drive_id, state.donor_id] += sign * state.counted.net
    else:
        board.add(donors=sign * gift)


def _keep(connection: Connection, rows: Sequence[dict[str, Any]], known: Mapping[str, Row[Any]]) -> None:
    """Store the payments' new rows. Raises `Overtaken` where one was made since `known` was read.

    The lock on the drive does not keep others out: a payment's states under two drives are on two
    partitions, which two processes may read at once.
    """
    new = [row for row in rows if row["payment_id"] not in known]
    if new:
        made = connection.execute(statements(connection).add_payments, new).all()
        if len(made) != len(new):
            raise Overtaken(f"{len(new) - len(made)} of {len(new)} payments were tallied meanwhile")
    if kept := [row for row in rows if row["payment_id"] in known]:
        connection.execute(statements(connection).keep_payments, kept)


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
    if sums.reached_again:
        again = [{"of_creator": one} for one in sorted(sums.reached_again)]
        connection.execute(statements(connection).reach_again, again)


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
    """A pledge whose money came is no longer `pledged`, whichever of the two was heard first.

    The pledge may be of another drive than its payment, which then is locked late; `boards` gains it.
    """
    if not sums.paid:
        return
    rows = [
        {"pledge_id": pledge_id, "drive_id": drive_id, "version": 0, "open": False, "paid": True, "amount": 0}
        for pledge_id, drive_id in sorted(dict(sums.paid).items())
    ]
    opened = [row for row in connection.execute(statements(connection).mark_paid, rows) if row.open]
    boards |= sequencer.lock(connection, {row.drive_id for row in opened} - boards.keys())
    for row in opened:
        boards[row.drive_id].add(pledged=-row.amount)
