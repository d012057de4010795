"""The one place where a drive's rows are locked, numbered, logged and announced.

Everything that changes what a drive shows takes its `LockedDrive` here, notes its changes on it and gives
it back to `save`, within one transaction; the rows `save` answers are announced in it.

This code is plain, not async: a handler runs it as a whole (`AsyncSession.run_sync`), because the
way through the async facade costs as much again as a statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from backbone.clock import rfc3339
from backbone.contracts import DriveLogged, PaymentChanged
from backbone.contracts.leaderboard import LogType
from backbone.database.database import microseconds
from backbone.ids import CreatorId, DriveId, PaymentId, PledgeId
from backbone.money import Money
from services.leaderboard.domain import Milestone, hash_row
from services.leaderboard.statements import statements
from services.leaderboard.tables import drive_log, drives

SUMS: Final = ("captured", "refunded", "disputed", "offline", "matched", "pledged", "donations", "donors")


class DriveGone(RuntimeError):
    """An update touched no row although the row was locked: a bug, never "0 gifts"."""


class CurrencyChanged(ValueError):
    """A drive's money came in another currency than before: its speaker is wrong."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a row of the log says, before it has a number."""

    type: LogType
    at: datetime
    raised_after: int
    amount: int | None = None
    payment_id: PaymentId | None = None
    pledge_id: PledgeId | None = None
    creator_id: CreatorId | None = None


@dataclass(slots=True)
class LockedDrive:
    """A drive's locked row, and what this transaction changes of it."""

    drive_id: str
    version: int
    state: str | None
    currency: str | None
    epoch: int
    sequence: int
    head_hash: str
    raised: int
    changed_at: datetime | None
    milestones: list[Milestone]
    sums: Counter[str] = field(default_factory=Counter)
    entries: list[LogEntry] = field(default_factory=list)
    changed: bool = False

    def settle_currency(self, currency: str) -> None:
        """The first money or name that comes says what the drive's currency is.

        Raises `CurrencyChanged` where it was another before.
        """
        if self.currency is None:
            self.currency = currency
        elif self.currency != currency:
            raise CurrencyChanged(f"{self.drive_id} is in {self.currency}, not {currency}")

    def add(self, **sums: int) -> None:
        """Add to the drive's columns of these names."""
        for name, amount in sums.items():
            if amount:
                self.sums[name] += amount
                self.changed = True

    def note_moment(self, at: datetime) -> None:
        """Remember the newest moment heard of."""
        self.changed_at = at if self.changed_at is None else max(at, self.changed_at)

    def log_state(self, type_: LogType, at: datetime) -> None:
        """Write a row that moves no money."""
        self.entries.append(LogEntry(type_, at, self.raised))

    def log_payment(self, rows: Iterable[tuple[LogType, int]], payment: PaymentChanged) -> None:
        """Write each (type, effect on `raised`) of a payment, then a row for each milestone now reached.

        Milestones are judged once all of the payment is in: money that was refunded before anybody heard
        of it reaches none.
        """
        about = (payment.payment_id, payment.pledge_id, payment.creator_id)
        first_at = None
        for type_, moved in rows:
            captured_at = payment.captured_at if type_ == "donation.counted" else None
            at = captured_at or payment.changed_at
            first_at = first_at or at
            self.raised += moved
            self.entries.append(LogEntry(type_, at, self.raised, abs(moved), *about))
        if first_at is not None:
            self.reach_milestones(first_at)

    def reach_milestones(self, at: datetime) -> None:
        """Log, once each, the milestones that what is raised has reached; `amount` is the milestone's."""
        for milestone in self.milestones:
            if milestone["amount"] > self.raised:
                return
            if milestone["reached_at"] is None:
                milestone["reached_at"] = rfc3339(at)
                self.entries.append(LogEntry("milestone.reached", at, self.raised, milestone["amount"]))


_COLUMNS: Final = (
    drives.c.drive_id,
    drives.c.version,
    drives.c.state,
    drives.c.currency,
    drives.c.epoch,
    drives.c.sequence,
    drives.c.head_hash,
    (drives.c.captured + drives.c.offline + drives.c.matched - drives.c.refunded - drives.c.disputed).label(
        "raised"
    ),
    drives.c.changed_at,
    drives.c.milestones,
)


_LOCKED: Final = (
    select(*_COLUMNS)
    .where(drives.c.drive_id.in_(bindparam("wanted", expanding=True)))
    .order_by(drives.c.drive_id)
    .with_for_update()
)


def lock(connection: Connection, drive_ids: Iterable[str]) -> dict[str, LockedDrive]:
    """The boards of these drives, locked in the order of their ids; bare ones are made where missing."""
    wanted = sorted(set(drive_ids))
    locked = _locked(connection, wanted)
    if missing := [drive_id for drive_id in wanted if drive_id not in locked]:
        connection.execute(statements(connection).make_drives, [placeholder_row(one) for one in missing])
        locked |= _locked(connection, missing)
    return locked


def _locked(connection: Connection, drive_ids: Sequence[str]) -> dict[str, LockedDrive]:
    rows = connection.execute(_LOCKED, {"wanted": drive_ids})
    return {row.drive_id: LockedDrive(**row._asdict()) for row in rows}


def placeholder_row(drive_id: str) -> dict[str, Any]:
    """The row of a drive that has no name yet."""
    zeros = dict.fromkeys((*SUMS, "version", "goal", "sequence", "revision"), 0)
    return {
        **zeros,
        "drive_id": drive_id,
        "milestones": [],
        "test": False,
        "epoch": 1,
        "head_hash": "",
    }


_UPDATE_DRIVE: Final = (
    update(drives)
    .where(drives.c.drive_id == bindparam("of_drive"))
    .values(
        {name: drives.c[name] + bindparam(f"more_{name}") for name in SUMS}
        | {
            "sequence": drives.c.sequence + bindparam("more_rows"),
            "revision": drives.c.revision + bindparam("more_revisions"),
            "head_hash": bindparam("new_head"),
            "currency": bindparam("new_currency"),
            "milestones": bindparam("new_milestones", type_=drives.c.milestones.type),
            "changed_at": bindparam("new_changed_at", type_=drives.c.changed_at.type),
        }
    )
    .returning(drives.c.sequence)
)


def save(connection: Connection, locked: Iterable[LockedDrive]) -> list[DriveLogged]:
    """Store what changed of these boards and append their rows to the log; the rows, to be announced.

    `revision` rises where something shown changed without a row. Raises `DriveGone` where an update
    met no row, or not the one that was locked.
    """
    logged: list[DriveLogged] = []
    for drive in sorted(locked, key=lambda one: one.drive_id):
        if drive.entries or drive.changed:
            rows = _number(drive)
            _update_drive(connection, drive, rows)
            logged += rows
    if logged:
        connection.execute(_APPEND, [_stored(row) for row in logged])
        _count_seconds(connection, logged)
    return logged


_APPEND: Final = insert(drive_log)


def _update_drive(connection: Connection, drive: LockedDrive, rows: Sequence[DriveLogged]) -> None:
    values = {f"more_{name}": drive.sums[name] for name in SUMS} | {
        "of_drive": drive.drive_id,
        "more_rows": len(rows),
        "more_revisions": 0 if rows else 1,
        "new_head": rows[-1].hash if rows else drive.head_hash,
        "new_currency": drive.currency,
        "new_milestones": drive.milestones,
        "new_changed_at": drive.changed_at,
    }
    sequence = connection.execute(_UPDATE_DRIVE, values).scalar_one_or_none()
    if sequence != drive.sequence + len(rows):
        raise DriveGone(f"{drive.drive_id} stands at {sequence}, not {drive.sequence + len(rows)}")


def _number(drive: LockedDrive) -> list[DriveLogged]:
    """The rows of a board with their numbers and hashes."""
    rows: list[DriveLogged] = []
    previous = drive.head_hash
    for sequence, log_entry in enumerate(drive.entries, drive.sequence + 1):
        rows.append(_row(drive, sequence, log_entry, previous))
        previous = rows[-1].hash
    return rows


def _row(drive: LockedDrive, sequence: int, log_entry: LogEntry, previous: str) -> DriveLogged:
    currency = drive.currency
    assert currency is not None, "money was logged before the drive had a currency"
    # Built without validation (it is ours), and hashed in the words of the public door.
    row = DriveLogged.model_construct(
        drive_id=DriveId(drive.drive_id),
        epoch=drive.epoch,
        sequence=sequence,
        type=log_entry.type,
        # What is stored is what is hashed: to the millisecond.
        at=log_entry.at.replace(microsecond=log_entry.at.microsecond // 1000 * 1000),
        payment_id=log_entry.payment_id,
        pledge_id=log_entry.pledge_id,
        creator_id=log_entry.creator_id,
        amount=None if log_entry.amount is None else Money(log_entry.amount, currency),
        raised_after=Money(log_entry.raised_after, currency),
        hash="",
    )
    # Frozen against everybody else; a copy would cost more than the hash.
    row.__dict__["hash"] = hash_row(drive.drive_id, drive.epoch, row.as_row(), previous)
    return row


def _stored(row: DriveLogged) -> dict[str, Any]:
    return {
        "drive_id": row.drive_id,
        "epoch": row.epoch,
        "sequence": row.sequence,
        "type": row.type,
        "at": row.at,
        "payment_id": row.payment_id,
        "pledge_id": row.pledge_id,
        "creator_id": row.creator_id,
        "amount": None if row.amount is None else row.amount.minor_units,
        "raised_after": row.raised_after.minor_units,
        "currency": row.raised_after.currency,
        "hash": row.hash,
    }


def request_publication(connection: Connection, drive_ids: Iterable[str]) -> None:
    """Have these drives published within a second by the process that publishes them.

    A payment that changes drive is handled by the process that reads the new drive's partition; the old
    drive may be another process's, which would not hear of the change. That process looks for paces that
    have expired once a second (`Snapshots.refresh`): one of second 0 has.
    """
    rows = [{"drive_id": one, "second": 0, "donations": 0, "raised": 0} for one in sorted(drive_ids)]
    if rows:
        connection.execute(statements(connection).request_publication, rows)


def _count_seconds(connection: Connection, rows: Sequence[DriveLogged]) -> None:
    """Count the gifts of each second, for the figures of the last minute."""
    seconds: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        if row.type == "donation.counted" and row.amount is not None:
            counts = seconds.setdefault((row.drive_id, microseconds(row.at) // 1_000_000), [0, 0])
            counts[0] += 1
            counts[1] += row.amount.minor_units
    if seconds:
        values = [
            {"drive_id": drive_id, "second": second, "donations": donations, "raised": raised}
            for (drive_id, second), (donations, raised) in seconds.items()
        ]
        connection.execute(statements(connection).add_second_counts, values)
