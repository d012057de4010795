"""Has the boards' sums of a drive computed anew, from nothing.

That happens where a process of an earlier version counted payments, and after migrations that say so. A
drive's `summed_number` is `NEVER_SUMMED` until its sums are nothing; then payments are added as usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Executable, bindparam, literal_column, or_, select, text, update

from backbone.database.transaction import SyncTransaction
from services.leaderboard.sums import RANKED, WINDOWS, Ranked
from services.leaderboard.superseding import FORGET
from services.leaderboard.tables import NEVER_SUMMED, UNRANKED, drives, payments

_of_drive: Final = drives.c.drive_id == bindparam("of_drive")


def clear(transaction: SyncTransaction, drive_id: str, most: int) -> bool:
    """Set up to `most` rows of each of a drive's tables of sums to nothing; whether none is left.

    The states that were replaced are forgotten together with the last of the sums that contain them.
    The drive's row is locked by the caller.
    """
    of_drive = {"of_drive": drive_id}
    for statement in _CLEARING:
        if transaction.execute(statement, of_drive | {"most": most}).rowcount >= most:
            transaction.execute(_BEGIN, of_drive)
            return False
    transaction.execute(FORGET, of_drive)
    return True


def _clearing() -> Iterator[Executable]:
    for ranked in RANKED:
        sums = [f"{window}_{name}" for window in WINDOWS for name in ("raised", "donations")]
        nothing: dict[str, Any] = dict.fromkeys(sums, 0)
        has_any = [ranked.table.c[name] != literal_column("0") for name in sums]
        if ranked.in_all:
            nothing |= {"raised": 0, "donations": 0, "reached_at": None}
            raised, gifts = ranked.table.c.raised, ranked.table.c.donations
            # First by the boards' index, which a cleared row leaves: the others are found by reading on.
            yield _clearing_some(ranked, raised > literal_column("0"), nothing)
            has_any += [raised != literal_column("0"), gifts != literal_column("0")]
            has_any.append(ranked.table.c.reached_at.is_not(None))
        yield _clearing_some(ranked, or_(*has_any), nothing)


def _clearing_some(ranked: Ranked, chosen: Any, nothing: dict[str, Any]) -> Executable:
    of_drive = ranked.table.c.drive_id == bindparam("of_drive")
    some = select(ranked.key).where(of_drive, chosen).limit(bindparam("most"))
    return update(ranked.table).where(of_drive, ranked.key.in_(some)).values(nothing)


_CLEARING: Final = tuple(_clearing())
_BEGIN: Final = update(drives).where(_of_drive).values(summed_number=NEVER_SUMMED, summed_sequence=-1)


def have_summed_again(transaction: SyncTransaction) -> list[str]:
    """Have the sums of drives with payments that a process of an earlier version wrote computed anew.

    During an upgrade such a process counts payments without numbering them. Returns the drives.
    """
    found = list(_unranked_drives(transaction))
    for drive_id in found:
        last = transaction.execute(_LAST_NUMBER, {"of_drive": drive_id}).scalar_one()
        rows = transaction.execute(_UNRANKED_OF_DRIVE, {"of_drive": drive_id}).all()
        ranked = [
            {
                "of_payment": row.payment_id,
                "new_number": last + n,
                "new_key": row.donor_key or f"dnr_{row.payment_id.removeprefix('pay_')}",
            }
            for n, row in enumerate(rows, 1)
        ]
        transaction.execute(_RANK, ranked)
        transaction.execute(
            update(drives)
            .where(drives.c.drive_id == drive_id)
            .values(summed_number=NEVER_SUMMED, last_number=last + len(rows))
        )
    return found


_LAST_NUMBER: Final = select(drives.c.last_number).where(_of_drive).with_for_update()

_NEXT_UNRANKED: Final = (
    select(payments.c.drive_id)
    .where(text(UNRANKED), payments.c.drive_id > bindparam("after"))
    .order_by(payments.c.drive_id)
    .limit(literal_column("1"))
)
"""One at a time: PostgreSQL expects two columns to differ in most rows, and reads all rows for a DISTINCT."""


def _unranked_drives(transaction: SyncTransaction) -> Iterator[str]:
    after = ""
    while (row := transaction.execute(_NEXT_UNRANKED, {"after": after}).first()) is not None:
        after = row.drive_id
        yield after


_UNRANKED_OF_DRIVE: Final = select(payments.c.payment_id, payments.c.donor_key).where(
    payments.c.drive_id == bindparam("of_drive"), text(UNRANKED)
)
_RANK: Final = (
    update(payments)
    .where(payments.c.payment_id == bindparam("of_payment"))
    .values(number=bindparam("new_number"), donor_key=bindparam("new_key"), ranked_version=payments.c.version)
)
