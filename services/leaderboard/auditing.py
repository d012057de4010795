"""Reads for the audit of a drive: its payments as they are counted, and its log computed again.

Each read is bounded or a single aggregate, and runs in `Database.read_whole`: on SQLite in its own thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Row, String, bindparam, case, func, literal, select, type_coerce, union_all

from backbone.clock import rfc3339_of_microseconds
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from backbone.money import Money
from services.leaderboard.hash_chain import FIRST_HASH, hash_new_row
from services.leaderboard.matching.tables import pools
from services.leaderboard.tables import drive_log, drives, payments

ROWS_PER_STEP: Final = 4_000
"""Rows of a log that one step computes again."""
MAX_NAMED: Final = 100
"""Payments that are named where the log and the stored payments disagree; more are not looked for."""

EFFECTS: Final[Mapping[str, int]] = {
    "donation.counted": 1,
    "donation.corrected": 1,
    "donation.refunded": -1,
    "donation.refund_failed": 1,
    "donation.disputed": -1,
    "donation.dispute_won": 1,
    "matching.applied": 1,
    "matching.returned": -1,
    "milestone.reached": 0,
    "drive.opened": 0,
    "drive.paused": 0,
    "drive.resumed": 0,
    "drive.closed": 0,
}
"""The sign of each type's amount in `raised`. A type that is not here is taken as its row states it."""


class CountedPayment(NamedTuple):
    """A payment as leaderboard stores it. Amounts are in minor units of `currency`, in which it was given.

    `reporting_net` is what it adds to the drive's sums where it is `counted`, in the drive's currency.
    """

    payment_id: str
    drive_id: str
    version: int
    currency: str
    counted: bool
    captured: int
    refunded: int
    disputed: int
    reporting_net: int


_COLUMNS: Final = (
    *(payments.c[name] for name in ("payment_id", "drive_id", "version", "currency", "counted")),
    *(
        func.coalesce(payments.c[f"given_{name}"], payments.c[name])
        for name in ("captured", "refunded", "disputed")
    ),
    payments.c.captured - payments.c.refunded - payments.c.disputed,
)


def counted_payments(
    transaction: SyncTransaction, drive_id: str, after: str, until: str, limit: int
) -> list[CountedPayment]:
    """Payments of a drive with ids above `after` up to `until`, in the order of their ids."""
    given = {"of_drive": drive_id, "after": after, "until": until, "most": limit}
    return [CountedPayment(*row) for row in transaction.execute(_PAGE, given)]


_PAGE: Final = (
    select(*_COLUMNS)
    .where(payments.c.payment_id > bindparam("after"), payments.c.payment_id <= bindparam("until"))
    # Concatenated, so that no index by drive is chosen: each would read and sort the whole drive for a page.
    .where(payments.c.drive_id + literal("") == bindparam("of_drive", type_=String))
    .order_by(payments.c.payment_id)
    .limit(bindparam("most"))
)


def payments_by_id(transaction: SyncTransaction, ids: Collection[str]) -> list[CountedPayment]:
    """Those of these payments that are stored, of any drive."""
    return [CountedPayment(*row) for row in transaction.execute(_BY_ID, {"ids": ids})]


_BY_ID: Final = select(*_COLUMNS).where(one_of(payments.c.payment_id, "ids"))


def counted_pools(transaction: SyncTransaction, drive_id: str) -> list[tuple[str, int, int]]:
    """A drive's matching pools: id, version, and what was used of each."""
    return [tuple(row) for row in transaction.execute(_POOLS, {"of_drive": drive_id})]


_POOLS: Final = select(pools.c.pool_id, pools.c.version, pools.c.used).where(
    pools.c.drive_id == bindparam("of_drive")
)


class LogPosition(NamedTuple):
    """How far a log was computed again: epoch, the last row's sequence and hash, and `raised` after it."""

    epoch: int = 0
    sequence: int = 0
    hash: str = FIRST_HASH
    raised: int = 0


class LogStep(NamedTuple):
    """One step along a log. `flaw` is the reason why the row after `position`, or the end, is wrong.

    `is_end` is set where the position is that of the drive's row, in the same snapshot. `of_sums` is
    set where the log is right, and the flaw is that the drive's sums differ from it.
    """

    position: LogPosition
    length: int
    is_end: bool
    flaw: str | None
    of_sums: bool = False


def verify_log(transaction: SyncTransaction, drive_id: str, start: LogPosition) -> LogStep:
    """Compute the next rows of a drive's log again: their sequences, hashes and `raised`.

    A drive of another epoch than `start` is begun from its first row. Raises `LookupError` where leaderboard
    does not know the drive.
    """
    head = transaction.execute(_HEAD, {"of_drive": drive_id}).first()
    if head is None:
        raise LookupError(drive_id)
    position = start if start.epoch == head.epoch else LogPosition(head.epoch)
    given = {"of_drive": drive_id, "of_epoch": head.epoch, "after": position.sequence}
    rows = transaction.execute(_ROWS, given).all()
    position, flaw = _verified(drive_id, position, rows)
    is_end = flaw is not None or len(rows) < ROWS_PER_STEP
    of_sums = None
    if flaw is None and is_end:
        flaw = _flaw_of_end(head, position)
        of_sums = _difference_of_sums(head, position) if flaw is None else None
    return LogStep(position, head.sequence, is_end, flaw or of_sums, of_sums is not None)


_RAISED: Final = (
    drives.c.captured + drives.c.offline + drives.c.matched - drives.c.refunded - drives.c.disputed
).label("raised")
_HEAD: Final = select(drives.c.epoch, drives.c.sequence, drives.c.head_hash, _RAISED).where(
    drives.c.drive_id == bindparam("of_drive")
)
_ROWS: Final = (
    select(
        drive_log.c.sequence, drive_log.c.type, type_coerce(drive_log.c.at, BigInteger).label("at"),
        drive_log.c.payment_id, drive_log.c.pledge_id, drive_log.c.creator_id, drive_log.c.amount,
        drive_log.c.raised_after, drive_log.c.currency, drive_log.c.hash, drive_log.c.given_amount,
        drive_log.c.given_currency,
    )
    .where(drive_log.c.drive_id == bindparam("of_drive"), drive_log.c.epoch == bindparam("of_epoch"))
    .where(drive_log.c.sequence > bindparam("after"))
    .order_by(drive_log.c.sequence)
    .limit(ROWS_PER_STEP)
)  # fmt: skip


def _verified(drive_id: str, start: LogPosition, rows: Sequence[Any]) -> tuple[LogPosition, str | None]:
    """The position after the last of `rows` that is right, and why the next one is not."""
    epoch, before, previous, raised = start
    for (
        sequence, type_, at, payment_id, pledge_id, creator_id, amount, raised_after, currency, hash_, given,
        given_currency,
    ) in rows:  # fmt: skip
        expected = hash_new_row(
            drive_id, epoch, sequence, type_, rfc3339_of_microseconds(at), payment_id, pledge_id, creator_id,
            amount, raised_after, currency, previous,
            None if given is None else Money(given, given_currency),
        )  # fmt: skip
        effect = EFFECTS.get(type_)
        flaw = None
        if sequence != before + 1:
            flaw = f"row {sequence} follows row {before}"
        elif expected != hash_:
            flaw = f"row {sequence} does not have the hash of its content"
        elif effect is not None and raised_after != raised + effect * (amount or 0):
            flaw = f"row {sequence} states another sum than the rows up to it add up to"
        if flaw is not None:
            return LogPosition(epoch, before, previous, raised), flaw
        before, previous, raised = sequence, hash_, raised_after
    return LogPosition(epoch, before, previous, raised), None


def _flaw_of_end(head: Row[Any], position: LogPosition) -> str | None:
    if position.sequence != head.sequence:
        return f"the log ends with row {position.sequence}, its drive is at row {head.sequence}"
    if position.hash != head.head_hash:
        return f"row {position.sequence} is the last, and its drive has another hash of it"
    return None


def _difference_of_sums(head: Row[Any], position: LogPosition) -> str | None:
    if position.raised != head.raised:
        return f"the rows add up to {position.raised}, the drive's sums to {head.raised}"
    return None


class LoggedDifference(NamedTuple):
    """A payment whose rows in the log do not add up to what is counted of it."""

    payment_id: str
    counted: int
    logged: int


def log_differences(transaction: SyncTransaction, drive_id: str) -> list[LoggedDifference]:
    """The payments that a drive's log and stored payments count differently; at most `MAX_NAMED`."""
    given = {"of_drive": drive_id, "most": MAX_NAMED}
    return [
        LoggedDifference(payment_id, int(counted), int(logged))
        for payment_id, counted, logged in transaction.execute(_LOG_DIFFERENCES, given)
    ]


_NET: Final = payments.c.captured - payments.c.refunded - payments.c.disputed
_LOGGED: Final = case(
    {name: sign * drive_log.c.amount for name, sign in EFFECTS.items() if sign},
    value=drive_log.c.type,
    else_=0,
)
_EPOCH_OF_DRIVE: Final = (
    select(drives.c.epoch).where(drives.c.drive_id == bindparam("of_drive")).scalar_subquery()
)
_BOTH: Final = union_all(
    select(payments.c.payment_id, _NET.label("counted"), literal(0).label("logged")).where(
        payments.c.drive_id == bindparam("of_drive"), payments.c.counted
    ),
    select(drive_log.c.payment_id, literal(0), _LOGGED).where(
        drive_log.c.drive_id == bindparam("of_drive"),
        drive_log.c.epoch == _EPOCH_OF_DRIVE,
        drive_log.c.payment_id.is_not(None),
    ),
).subquery("both_sides")
_LOG_DIFFERENCES: Final = (
    select(_BOTH.c.payment_id, func.sum(_BOTH.c.counted), func.sum(_BOTH.c.logged))
    .group_by(_BOTH.c.payment_id)
    .having(func.sum(_BOTH.c.counted) != func.sum(_BOTH.c.logged))
    .order_by(_BOTH.c.payment_id)
    .limit(bindparam("most"))
)
