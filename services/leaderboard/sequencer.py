"""The only code that locks a drive's row, appends to its log and assigns sequence numbers.

Every change of a drive's figures happens in one transaction: `lock` returns a `LockedDrive`, the caller
records its changes on it, and `save` stores them. The caller adds the rows that `save` returns to the outbox
in the same transaction.

The code is synchronous, and a handler runs it with `Transaction.run_sync`: a call through SQLAlchemy's async
facade costs as much as the statement itself.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, insert, select, update

from backbone.clock import rfc3339, rfc3339_of_microseconds
from backbone.contracts import PaymentChanged
from backbone.contracts.leaderboard import LogType
from backbone.database.columns import microseconds
from backbone.database.one_of import one_of
from backbone.database.plans import Tuples
from backbone.database.transaction import SyncTransaction
from backbone.ids import CreatorId, PaymentId, PledgeId
from backbone.money import Money
from services.leaderboard.domain import Milestone, alias_of_donor
from services.leaderboard.hash_chain import hash_new_row
from services.leaderboard.logged_rows import LoggedRow
from services.leaderboard.statements import statements
from services.leaderboard.tables import NEVER_SUMMED, drive_log, drives

COUNTED_S: Final = 60
"""For how long the counts of a second are kept."""

SUMS: Final = ("captured", "refunded", "disputed", "offline", "matched", "pledged", "donations", "donors")


NOT_GIVEN: Final[Mapping[LogType, Money]] = {}


class DriveGone(RuntimeError):
    """An update matched no row although the row was locked. This is a bug, never a reason to go on."""


class CurrencyChanged(ValueError):
    """An event gives a drive another currency than it already has: its producer is wrong."""


class LogEntry(NamedTuple):
    """A row of the log that has no sequence number yet. Amounts are in minor units."""

    type: LogType
    at: datetime
    raised_after: int
    amount: int | None = None
    payment_id: PaymentId | None = None
    pledge_id: PledgeId | None = None
    creator_id: CreatorId | None = None
    given: Money | None = None


@dataclass(slots=True)
class LockedDrive:
    """A drive's locked row and the changes this transaction makes to it."""

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
    last_number: int
    summed_number: int
    alias_salt: str | None
    sums: Counter[str] = field(default_factory=Counter)
    entries: list[LogEntry] = field(default_factory=list)
    changed: bool = False

    def settle_currency(self, currency: str) -> None:
        """Set the drive's currency, which is that of the first event about it.

        Raises `CurrencyChanged` if the drive already has another.
        """
        if self.currency is None:
            self.currency = currency
        elif self.currency != currency:
            raise CurrencyChanged(f"{self.drive_id} is in {self.currency}, not {currency}")

    def add(self, **sums: int) -> None:
        """Add these amounts to the drive's columns of the same names."""
        for name, amount in sums.items():
            if amount:
                self.sums[name] += amount
                self.changed = True

    def note_moment(self, at: datetime) -> None:
        """Move `changed_at` forward to `at`."""
        self.changed_at = at if self.changed_at is None else max(at, self.changed_at)

    def next_number(self) -> int:
        """A number for a payment whose state the boards have to add."""
        self.last_number += 1
        self.changed = True
        return self.last_number

    def is_summed(self, number: int) -> bool:
        """Whether the state of the payment with this number is in the boards' sums."""
        return 0 < number <= self.summed_number

    def sum_again(self) -> None:
        """Have the boards' sums computed again from all payments."""
        self.summed_number = NEVER_SUMMED
        self.changed = True

    def alias(self, donor_id: str) -> str:
        """The public id of a donor's unnamed gifts to this drive."""
        if self.alias_salt is None:
            self.alias_salt = secrets.token_hex(16)
            self.changed = True
        return alias_of_donor(self.alias_salt, donor_id)

    def log_state(self, type_: LogType, at: datetime) -> None:
        """Log a change of state, which moves no money."""
        self.entries.append(LogEntry(type_, at, self.raised))

    def log_payment(
        self,
        rows: Iterable[tuple[LogType, int]],
        payment: PaymentChanged,
        given: Mapping[LogType, Money] = NOT_GIVEN,
    ) -> None:
        """Log each (type, effect on `raised`) of a payment, then each milestone reached by all of them.

        `given` has the sizes of the changes in the currency of the gift, where that is not the drive's.

        Milestones are checked after the whole payment: money that was refunded before the payment was
        consumed reaches none.
        """
        about = (payment.payment_id, payment.pledge_id, payment.creator_id)
        first_at = None
        for type_, moved in rows:
            # An offline gift was received days before it is approved; it enters the log when it counts.
            is_live = type_ == "donation.counted" and not payment.offline
            captured_at = payment.captured_at if is_live else None
            at = captured_at or payment.changed_at
            first_at = first_at or at
            self.raised += moved
            self.entries.append(LogEntry(type_, at, self.raised, abs(moved), *about, given.get(type_)))
        if first_at is not None:
            self.reach_milestones(first_at)

    def log_matching(self, moved: int, at: datetime) -> None:
        """Log and add what a sponsor gives to the drive, or gets back where `moved` is negative."""
        if moved:
            self.add(matched=moved)
            self.raised += moved
            type_: LogType = "matching.applied" if moved > 0 else "matching.returned"
            self.entries.append(LogEntry(type_, at, self.raised, abs(moved)))
            self.reach_milestones(at)

    def reach_milestones(self, at: datetime) -> None:
        """Log every milestone that `raised` has reached and that is not logged yet, with its amount.

        None is reached before a lower one: an older donation may be consumed later.
        """
        earlier: list[str] = []
        for milestone in self.milestones:
            if milestone["amount"] > self.raised:
                return
            reached_at = milestone["reached_at"]
            if reached_at is None:
                at = max([at, *map(datetime.fromisoformat, earlier)])
                reached_at = milestone["reached_at"] = rfc3339(at)
                self.entries.append(LogEntry("milestone.reached", at, self.raised, milestone["amount"]))
            earlier.append(reached_at)


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
    drives.c.last_number,
    drives.c.summed_number,
    drives.c.alias_salt,
)


_LOCKED: Final = (
    select(*_COLUMNS).where(one_of(drives.c.drive_id, "wanted")).order_by(drives.c.drive_id).with_for_update()
)


def lock(transaction: SyncTransaction, drive_ids: Iterable[str]) -> dict[str, LockedDrive]:
    """These drives, locked in the order of their ids; placeholder rows are inserted for missing ones."""
    wanted = sorted(set(drive_ids))
    locked = _locked(transaction, wanted)
    if missing := [drive_id for drive_id in wanted if drive_id not in locked]:
        transaction.execute(statements(transaction).make_drives, [placeholder_row(one) for one in missing])
        locked |= _locked(transaction, missing)
    return locked


def _locked(transaction: SyncTransaction, drive_ids: Sequence[str]) -> dict[str, LockedDrive]:
    rows = transaction.execute(_LOCKED, {"wanted": drive_ids})
    return {row.drive_id: LockedDrive(**row._asdict()) for row in rows}


def placeholder_row(drive_id: str) -> dict[str, Any]:
    """The row of a drive whose first DriveChanged has not been consumed yet."""
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
            "last_number": bindparam("new_last_number"),
            "summed_number": bindparam("new_summed_number"),
            "alias_salt": bindparam("new_alias_salt"),
        }
    )
    .returning(drives.c.sequence)
)


def save(transaction: SyncTransaction, locked: Iterable[LockedDrive]) -> list[LoggedRow]:
    """Store the changes of these drives, append their rows to the log and return those, for the outbox.

    `revision` rises where public figures changed without a row. Raises `DriveGone` where an update matched
    no row, or one with another sequence than was locked.
    """
    logged: list[LoggedRow] = []
    for drive in sorted(locked, key=lambda one: one.drive_id):
        if drive.entries or drive.changed:
            rows = _number(drive)
            _update_drive(transaction, drive, rows)
            logged += rows
    if logged:
        transaction.execute(_APPEND, Tuples(LoggedRow._fields, logged))
        _count_seconds(transaction, logged)
    return logged


_APPEND: Final = insert(drive_log)


def _update_drive(transaction: SyncTransaction, drive: LockedDrive, rows: Sequence[LoggedRow]) -> None:
    values = {f"more_{name}": drive.sums[name] for name in SUMS} | {
        "of_drive": drive.drive_id,
        "more_rows": len(rows),
        "more_revisions": 0 if rows else 1,
        "new_head": rows[-1].hash if rows else drive.head_hash,
        "new_currency": drive.currency,
        "new_milestones": drive.milestones,
        "new_changed_at": drive.changed_at,
        "new_last_number": drive.last_number,
        "new_summed_number": drive.summed_number,
        "new_alias_salt": drive.alias_salt,
    }
    sequence = transaction.execute(_UPDATE_DRIVE, values).scalar_one_or_none()
    if sequence != drive.sequence + len(rows):
        raise DriveGone(f"{drive.drive_id} is at sequence {sequence}, not {drive.sequence + len(rows)}")


def _number(drive: LockedDrive) -> list[LoggedRow]:
    """The drive's new rows with their sequence numbers and hashes."""
    rows: list[LoggedRow] = []
    drive_id, epoch, currency, previous = drive.drive_id, drive.epoch, drive.currency, drive.head_hash
    for sequence, log_entry in enumerate(drive.entries, drive.sequence + 1):
        assert currency is not None, "money was logged before the drive had a currency"
        type_, moment, raised_after, amount, payment_id, pledge_id, creator_id, given = log_entry
        at = microseconds(moment)
        at -= at % 1000  # the hash covers what is stored, and that is a moment in milliseconds
        previous = hash_new_row(
            drive_id, epoch, sequence, type_, rfc3339_of_microseconds(at), payment_id, pledge_id, creator_id,
            amount, raised_after, currency, previous, given,
        )  # fmt: skip
        rows.append(
            LoggedRow(
                drive_id, epoch, sequence, type_, at, payment_id, pledge_id, creator_id,
                amount, raised_after, currency, previous,
                *(_NONE_GIVEN if given is None else (given.minor_units, given.currency)),
            )
        )  # fmt: skip
    return rows


_NONE_GIVEN: Final = (None, None)


def request_publication(transaction: SyncTransaction, drive_ids: Iterable[str], moment: int = 0) -> None:
    """Have these drives published within a second by the process that owns their partitions.

    Not before `moment`, in seconds since 1970.

    A payment that moves to another drive is handled by the owner of the new drive's partition. The old drive
    may belong to another process, which gets no event about it. Every second each process looks for expired
    per-second counts of its drives (`Snapshots.refresh`), and a count is expired once its
    second is a minute ago.
    """
    second = max(0, moment - COUNTED_S)
    rows = [{"drive_id": one, "second": second, "donations": 0, "raised": 0} for one in sorted(drive_ids)]
    if rows:
        transaction.execute(statements(transaction).request_publication, rows)


def _count_seconds(transaction: SyncTransaction, rows: Sequence[LoggedRow]) -> None:
    """Count the donations of each second, from which the last minute's figures are summed."""
    seconds: defaultdict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row.type == "donation.counted" and row.amount is not None:
            counts = seconds[row.drive_id, row.at // 1_000_000]
            counts[0] += 1
            counts[1] += row.amount
    if seconds:
        values = [
            {"drive_id": drive_id, "second": second, "donations": donations, "raised": raised}
            for (drive_id, second), (donations, raised) in seconds.items()
        ]
        transaction.execute(statements(transaction).add_second_counts, values)
