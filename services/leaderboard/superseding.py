"""Takes states of payments that have been replaced out of the boards' sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Executable, String, bindparam, delete, func, literal_column, select

from backbone.database.columns import Utc
from backbone.database.transaction import SyncTransaction
from services.leaderboard.sums import (
    RANKED,
    WINDOWS,
    Ranked,
    recomputing_reached_at,
    sums_by,
    sums_of,
    updating,
)
from services.leaderboard.tables import donors, payments, superseded


def subtract_superseded(
    transaction: SyncTransaction, drive_id: str, edges: Mapping[str, datetime], summed_number: int
) -> bool:
    """Subtract the states that were summed and have been replaced since, in windows with these `edges`.

    The sums contain the payments up to `summed_number`.

    False, and nothing is changed, where a process of an earlier version left out the donor of such a state:
    without it, the other payments of the donor's row cannot be found.
    """
    of_drive = {"of_drive": drive_id}
    if transaction.execute(_ANY, of_drive).first() is None:
        return True
    if transaction.execute(_LACKING_DONOR, of_drive).first() is not None:
        return False
    for statement in _SUBTRACTING:
        transaction.execute(statement, {**of_drive, **edges, "summed": summed_number})
    transaction.execute(FORGET, of_drive)
    return True


_of_drive: Final = superseded.c.drive_id == bindparam("of_drive")
_ANY: Final = select(superseded.c.payment_id).where(_of_drive).limit(literal_column("1"))
FORGET: Final = delete(superseded).where(_of_drive)
"""Forgets the states of `of_drive`: the sums contain none of them."""

_own_row: Final = literal_column("'dnr_'", String) + func.substr(superseded.c.payment_id, literal_column("5"))
"""The donors' row of a payment without a donor: the same as `domain.alias_of_payment`."""
_LACKING_DONOR: Final = _ANY.where(superseded.c.donor_id.is_(None), superseded.c.donor_key != _own_row)


def _subtracting() -> Iterator[Executable]:
    for ranked in RANKED:
        in_windows = {
            f"{window}_{name}": summed
            for window in WINDOWS
            for name, summed in sums_of(
                superseded.c.net, superseded.c.captured_at > bindparam(f"{window}_edge", type_=Utc)
            )
        }
        sums = in_windows | (dict(sums_of(superseded.c.net)) if ranked.in_all else {})
        key = superseded.c[ranked.named]
        yield updating(ranked, sums_by(key, sums, _of_drive).subquery("gone"), sums, -1)
        if ranked.in_all:
            yield from _recomputing(ranked)


def _recomputing(ranked: Ranked) -> Iterator[Executable]:
    """Compute `reached_at` of the rows that lost a state again.

    Payments have an index of their donors, not of the rows they are summed in. Those of a row are all of one
    donor, or the row is that of a single payment without a donor.
    """
    key, donor_id = superseded.c[ranked.named], superseded.c.donor_id
    lost = select(key.label("key")).where(_of_drive).group_by(key)
    if ranked.table is not donors:
        yield recomputing_reached_at(ranked, lost.subquery("lost"))
        return
    of_donor = lost.add_columns(func.max(donor_id).label("donor_id")).where(donor_id.is_not(None))
    rows = of_donor.subquery("lost")
    yield recomputing_reached_at(ranked, rows, payments.c.donor_id == rows.c.donor_id)
    alone = lost.add_columns(func.max(superseded.c.payment_id).label("payment_id"))
    rows = alone.where(donor_id.is_(None)).subquery("lost")
    yield recomputing_reached_at(ranked, rows, payments.c.payment_id == rows.c.payment_id)


_SUBTRACTING: Final = tuple(_subtracting())
