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
from services.leaderboard.sequencer import LockedDrive
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import payments


class ConcurrentTally(RuntimeError):
    """Another process tallied a first state of the same payment meanwhile; tried again, this is no error."""


class _Changes:
    """What a batch of payments changes of the tables around the drives."""

    def __init__(self) -> None:
        self.clearings: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.creators: dict[str, dict[str, Any]] = {}
        self.donors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.paid: list[tuple[str, str]] = []
        self.reached_at_stale: set[str] = set()
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


class _PaymentState(NamedTuple):
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
        is_donation = self.creator_id is not None and self.counted.net > 0
        return (self.creator_id, self.captured_at) if is_donation and self.creator_id else None


def tally_payments(connection: Connection, events: Sequence[PaymentChanged]) -> list[DriveLogged]:
    """Apply each payment's new state minus its old one to its drive, one statement a table.

    A payment that changed drive is taken from the old one and counted in the new one. Raises
    `ConcurrentTally`.
    """
    fresh = domain.newest(events, lambda one: one.payment_id)
    # Before the drives: which ones those are, the payments say. Every tally locks in this order.
    known = by_id(connection, payments.c.payment_id, [event.payment_id for event in fresh], lock=True)
    locked = sequencer.lock(
        connection, [*(event.drive_id for event in fresh), *(row.drive_id for row in known.values())]
    )
    batch = _Changes()
    rows = [
        row
        for event in fresh
        if (row := _tally(event, known.get(event.payment_id), locked, batch)) is not None
    ]
    if not rows:
        return []
    _store_payments(connection, sorted(rows, key=lambda row: str(row["payment_id"])), known)
    _add_to_clearings(connection, batch)
    _credit_creators(connection, batch)
    _count_donors(connection, batch, locked)
    _mark_paid(connection, batch, locked)
    read_here = {event.drive_id for event in fresh}
    changed = {drive_id for drive_id, drive in locked.items() if drive.entries or drive.changed}
    sequencer.request_publication(connection, changed - read_here)
    return sequencer.save(connection, locked.values())


def _tally(
    event: PaymentChanged, old: Row[Any] | None, locked: Mapping[str, LockedDrive], batch: _Changes
) -> dict[str, Any] | None:
    """The payment's new row, None where nothing is new; what it changes goes to `locked` and `batch`."""
    figures = Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)
    if old is None and figures == NOTHING:
        return None  # no money moved yet: whatever comes later is applied to nothing just the same
    if old is not None and old.version >= event.version:
        return None
    drive = locked[event.drive_id]
    if not event.held and drive.currency is None:
        drive.settle_currency(event.captured.currency)
    counted = not event.held and event.captured.currency == drive.currency
    new = _PaymentState(
        event.drive_id, event.captured.currency, event.creator_id, event.donor_id,
        figures, figures if counted else NOTHING, event.captured_at or event.changed_at,
    )  # fmt: skip
    _apply(event, None if old is None else _state_of(old), new, locked, batch)
    if event.pledge_id is not None and figures.captured > 0 and _pays(old, event.pledge_id):
        batch.paid.append((event.pledge_id, event.drive_id))
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


def _state_of(row: Row[Any]) -> _PaymentState:
    figures = Figures(row.captured, row.refunded, row.disputed)
    return _PaymentState(
        row.drive_id, row.currency, row.creator_id, row.donor_id,
        figures, figures if row.counted else NOTHING, row.captured_at,
    )  # fmt: skip


def _apply(
    event: PaymentChanged,
    old: _PaymentState | None,
    new: _PaymentState,
    locked: Mapping[str, LockedDrive],
    batch: _Changes,
) -> None:
    """Carry a payment's new state minus its old one to everything it touches."""
    if old is None or old.drive_id != new.drive_id:
        was = NOTHING
        if old is not None:
            _apply_to_drive(event, old.counted, NOTHING, locked[old.drive_id])
    else:
        was = old.counted
    _apply_to_drive(event, was, new.counted, locked[new.drive_id])
    if old is not None:
        _attribute(batch, locked[old.drive_id], old, -1)
    _attribute(batch, locked[new.drive_id], new, 1)
    if old is not None and old.reached != new.reached:
        locked[new.drive_id].changed = True  # leaders may stand otherwise although no figure moved
        if old.reached is not None:
            batch.reached_at_stale.add(old.reached[0])


def _apply_to_drive(event: PaymentChanged, was: Figures, now: Figures, drive: LockedDrive) -> None:
    """Log what a payment that counted `was` in a drive and now counts `now` changes of it, and add it."""
    change = now.since(was)
    drive.log_payment(domain.changes(was, now), event)
    donations = int(now.net > 0) - int(was.net > 0)
    drive.add(
        captured=change.captured, refunded=change.refunded, disputed=change.disputed, donations=donations
    )
    drive.note_moment(event.changed_at)


def _pays(old: Row[Any] | None, pledge_id: str) -> bool:
    """Whether a captured payment has not yet been noted as its pledge's."""
    return old is None or old.captured == 0 or old.pledge_id != pledge_id


def _attribute(batch: _Changes, drive: LockedDrive, state: _PaymentState, sign: int) -> None:
    """Add a state of a payment to the clearing, the creator and the donor, or take it away."""
    held = state.figures.net - state.counted.net
    clearing = batch.clearings[state.drive_id, state.currency]
    clearing[0] += sign * state.figures.net
    clearing[1] += sign * held
    drive.changed = drive.changed or held != 0
    is_donation = int(state.counted.net > 0)
    if state.creator_id is not None and state.counted != NOTHING:
        at = state.captured_at if is_donation and sign > 0 else None
        batch.credit(state.creator_id, state.drive_id, sign * state.counted.net, sign * is_donation, at)
    if state.donor_id is not None:
        batch.donors[state.drive_id, state.donor_id] += sign * state.counted.net
    else:
        drive.add(donors=sign * is_donation)


def _store_payments(
    connection: Connection, rows: Sequence[dict[str, Any]], known: Mapping[str, Row[Any]]
) -> None:
    """Store the payments' new rows. Raises `ConcurrentTally` where one was made since `known` was read.

    The lock on the drive does not keep others out: a payment's states under two drives are on two
    partitions, which two processes may read at once.
    """
    new = [row for row in rows if row["payment_id"] not in known]
    if new:
        made = connection.execute(statements(connection).add_payments, new).all()
        if len(made) != len(new):
            raise ConcurrentTally(f"{len(new) - len(made)} of {len(new)} payments were tallied meanwhile")
    if kept := [row for row in rows if row["payment_id"] in known]:
        connection.execute(statements(connection).keep_payments, kept)


def _add_to_clearings(connection: Connection, batch: _Changes) -> None:
    rows = [
        {"drive_id": drive_id, "currency": currency, "net": net, "held": held}
        for (drive_id, currency), (net, held) in sorted(batch.clearings.items())
    ]
    connection.execute(statements(connection).add_to_clearings, rows)


def _credit_creators(connection: Connection, batch: _Changes) -> None:
    if not batch.creators:
        return
    rows = [batch.creators[one] for one in sorted(batch.creators)]
    connection.execute(statements(connection).credit_creators, rows)
    if batch.reached_at_stale:
        again = [{"of_creator": one} for one in sorted(batch.reached_at_stale)]
        connection.execute(statements(connection).recompute_reached_at, again)


def _count_donors(connection: Connection, batch: _Changes, locked: dict[str, LockedDrive]) -> None:
    """Donors are counted as their net rises above 0 and falls back."""
    rows = [
        {"drive_id": drive_id, "donor_id": donor_id, "net": net}
        for (drive_id, donor_id), net in sorted(batch.donors.items())
        if net
    ]
    if not rows:
        return
    for row in connection.execute(statements(connection).add_to_donors, rows):
        before = row.net - batch.donors[row.drive_id, row.donor_id]
        locked[row.drive_id].add(donors=int(row.net > 0) - int(before > 0))


def _mark_paid(connection: Connection, batch: _Changes, locked: dict[str, LockedDrive]) -> None:
    """A pledge whose money came is no longer `pledged`, whichever of the two was heard first.

    The pledge may be of another drive than its payment, which then is locked late; `locked` gains it.
    """
    if not batch.paid:
        return
    rows = [
        {"pledge_id": pledge_id, "drive_id": drive_id, "version": 0, "open": False, "paid": True, "amount": 0}
        for pledge_id, drive_id in sorted(dict(batch.paid).items())
    ]
    opened = [row for row in connection.execute(statements(connection).mark_paid, rows) if row.open]
    locked |= sequencer.lock(connection, {row.drive_id for row in opened} - locked.keys())
    for row in opened:
        locked[row.drive_id].add(pledged=-row.amount)
