"""The sums behind the boards of donors and sources, and behind every window.

A payment's event only numbers the payment (`tally.py`). Its amount is added later, in the database and many
payments at a time: once a second, and before a board is read. `bring_up_to_date` does that under the drive's
lock. The sums are therefore exact for one sequence of the drive's log, which they name.

A window contains the donations captured in its last hour or 24 hours, each with what is left of it: a refund
lowers the window its donation is in, and none that the donation has left. It slides by subtracting what was
captured before its new edge. `captured_at` and the amounts follow from the newest states of the payments
alone, so neither the order of their events nor repeats change a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Executable,
    Row,
    bindparam,
    literal_column,
    or_,
    select,
    update,
)

from backbone.database.columns import Utc
from backbone.database.transaction import SyncTransaction
from services.leaderboard.starting_anew import clear
from services.leaderboard.sums import (
    COUNTED_PAYMENTS,
    NET,
    OF_DRIVE,
    RANKED,
    WINDOWS,
    adding_to,
    sums_by,
    sums_of,
    updating,
)
from services.leaderboard.superseding import subtract_superseded
from services.leaderboard.tables import (
    NEVER_SUMMED,
    drives,
    payments,
)

MAX_PAYMENTS: Final = 500
"""Payments added, or taken out of a window, in one transaction: some 20 ms."""
CLEARED_FOR_ADDED: Final = 10
"""Rows of sums that are set to nothing in about the time in which one payment is added."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Summed(NamedTuple):
    """What a drive's sums contain, from its locked row."""

    drive_id: str
    sequence: int
    last_number: int
    summed_number: int
    is_anew: bool
    """Whether the sums contain nothing yet."""
    edges: dict[str, datetime]
    """By window, the moment before which nothing is in it."""


def find_due(transaction: SyncTransaction, now: datetime) -> list[str]:
    """The drives whose sums lack payments, or have a window that something leaves by `now`."""
    due = {f"{window}_edge": now - span for window, span in WINDOWS.items()}
    return [row.drive_id for row in transaction.execute(_DUE, due)]


_DUE: Final = select(drives.c.drive_id).where(
    or_(
        drives.c.last_number > drives.c.summed_number,
        *(
            drives.c[f"{window}_oldest"] <= bindparam(f"{window}_edge", type_=Utc)
            for window in WINDOWS
        ),
    )
)  # fmt: skip


def bring_up_to_date(
    transaction: SyncTransaction, drive_id: str, now: datetime, most: int = MAX_PAYMENTS
) -> bool:
    """Add `most` payments that a drive's sums lack, and take as many out of each window.

    Sums that begin anew are first set to nothing, ten times as many rows of a table in one transaction.
    Returns whether the sums lack nothing afterwards.

    Locks the drive's row: afterwards the sums cannot change in this transaction.
    """
    row = transaction.execute(_LOCKED, {"of_drive": drive_id}).first()
    if row is None:
        return True
    before = {f"{window}_edge": getattr(row, f"{window}_from") or _BEGINNING for window in WINDOWS}
    is_anew = row.summed_number == NEVER_SUMMED or not subtract_superseded(
        transaction, drive_id, before, row.summed_number
    )
    drive = _summed(row, now, is_anew=is_anew)
    if is_anew and not clear(transaction, drive_id, most * CLEARED_FOR_ADDED):
        return False
    edges = {window: _slide(transaction, drive, row, window, most) for window in WINDOWS}
    number = _add(transaction, drive, edges, most)
    is_complete = number == drive.last_number and edges == drive.edges
    kept = {"of_drive": drive_id, "new_number": number, "new_sequence": row.sequence if is_complete else -1}
    for window, edge in edges.items():
        oldest = transaction.execute(_OLDEST, {"of_drive": drive_id, "after": edge}).scalar_one_or_none()
        kept |= {f"new_{window}_from": edge, f"new_{window}_oldest": oldest}
    transaction.execute(_KEEP, kept)
    return is_complete


def _summed(row: Row[Any], now: datetime, *, is_anew: bool) -> Summed:
    """The drive, with the edges its windows are to have."""
    edges = {
        window: max(now - span, getattr(row, f"{window}_from") or _BEGINNING)
        for window, span in WINDOWS.items()
    }
    summed_number = 0 if is_anew else row.summed_number
    return Summed(row.drive_id, row.sequence, row.last_number, summed_number, is_anew, edges)


_LOCKED: Final = (
    select(
        *(
            drives.c[name]
            for name in (
                *("drive_id", "sequence", "last_number", "summed_number"),
                *(f"{window}_{end}" for window in WINDOWS for end in ("from", "oldest")),
            )
        )
    )
    .where(drives.c.drive_id == bindparam("of_drive"))
    .with_for_update()
)

_KEEP: Final = (
    update(drives)
    .where(drives.c.drive_id == bindparam("of_drive"))
    .values(
        {"summed_number": bindparam("new_number"), "summed_sequence": bindparam("new_sequence")}
        | {
            f"{window}_{end}": bindparam(f"new_{window}_{end}", type_=Utc)
            for window in WINDOWS
            for end in ("from", "oldest")
        }
    )
)

_captured_after: Final = payments.c.captured_at > bindparam("after", type_=Utc)

_OLDEST: Final = (
    select(payments.c.captured_at)
    .where(OF_DRIVE, COUNTED_PAYMENTS, _captured_after)
    .order_by(payments.c.captured_at)
    .limit(literal_column("1"))
)


# Adding payments.


def _add(transaction: SyncTransaction, drive: Summed, edges: Mapping[str, datetime], most: int) -> int:
    """Add the payments after the last one summed; the number of the last one that is summed now."""
    last = min(drive.last_number, drive.summed_number + most)
    if last > drive.summed_number:
        values = {"of_drive": drive.drive_id, "above": drive.summed_number, "last": last}
        values |= {f"{window}_edge": edge for window, edge in edges.items()}
        for statement in _adding(transaction.dialect.name):
            transaction.execute(statement, values)
    return last


@cache
def _adding(dialect: str) -> tuple[Executable, ...]:
    new = payments.c.number > bindparam("above"), payments.c.number <= bindparam("last")
    return tuple(adding_to(ranked, dialect, new) for ranked in RANKED)


# Sliding windows.


def _slide(transaction: SyncTransaction, drive: Summed, row: Row[Any], window: str, most: int) -> datetime:
    """Take out of a window what was captured up to its new edge; the edge it has then."""
    before, edge = getattr(row, f"{window}_from"), drive.edges[window]
    if before is None or drive.is_anew:
        return edge
    values = {"of_drive": drive.drive_id, "after": before, "edge": edge, "most": most}
    oldest = transaction.execute(_OLDEST, values).scalar_one_or_none()
    if oldest is None or oldest > edge:
        return edge
    some = transaction.execute(_EDGE_OF_SOME, values).scalar_one_or_none()
    values |= {"edge": some or edge, "last": drive.summed_number}
    for statement in _leaving(window):
        transaction.execute(statement, values)
    return some or edge


_up_to_edge: Final = payments.c.captured_at <= bindparam("edge", type_=Utc)
_EDGE_OF_SOME: Final = (
    select(payments.c.captured_at)
    .where(OF_DRIVE, COUNTED_PAYMENTS, _captured_after, _up_to_edge)
    .order_by(payments.c.captured_at)
    .offset(bindparam("most"))
    .limit(literal_column("1"))
)
"""The moment of capture after so many payments that leave a window; none where fewer leave it."""


@cache
def _leaving(window: str) -> tuple[Executable, ...]:
    leaves = OF_DRIVE, COUNTED_PAYMENTS, _captured_after, _up_to_edge, payments.c.number <= bindparam("last")
    sums = {f"{window}_{name}": summed for name, summed in sums_of(NET)}
    return tuple(
        updating(ranked, sums_by(payments.c[ranked.named], sums, *leaves).subquery("leaving"), sums, -1)
        for ranked in RANKED
    )
