"""A drive's sums counted again from its stored payments, donors, pledges and matching pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, and_, bindparam, case, func, select

from backbone.database.transaction import SyncTransaction
from services.leaderboard import domain
from services.leaderboard.matching.tables import pools
from services.leaderboard.sums import NET, OF_DRIVE
from services.leaderboard.tables import clearings, creators, drives, payments, pledges

_COUNTED: Final = and_(OF_DRIVE, payments.c.counted)
BY_PROCESSOR: Final = payments.c.offline.is_(False)
"""Payments of processor money; the others came past the processor."""
GIVEN_NET: Final = case(
    (payments.c.given_captured.is_(None), NET),
    else_=payments.c.given_captured - payments.c.given_refunded - payments.c.given_disputed,
)
"""The net of a payment in the currency of the gift."""


def recount(transaction: SyncTransaction, drive_id: str) -> Mapping[str, int]:
    """A drive's columns as its payments, donors, pledges and pools determine them. Reads all of its rows."""
    of_drive = {"of_drive": drive_id}
    row = transaction.execute(_FIGURES, of_drive).one()
    return {
        **{name: int(getattr(row, name)) for name in (*domain.Figures._fields, "offline", "donations")},
        "donors": sum(int(transaction.execute(one, of_drive).scalar_one()) for one in _DONORS),
        "pledged": int(transaction.execute(_PLEDGED, of_drive).scalar_one()),
        "matched": int(transaction.execute(_MATCHED, of_drive).scalar_one()),
    }


_FIGURES: Final = select(
    *(
        func.coalesce(func.sum(case((BY_PROCESSOR, payments.c[name]), else_=0)), 0).label(name)
        for name in domain.Figures._fields
    ),
    func.coalesce(func.sum(case((BY_PROCESSOR, 0), else_=NET)), 0).label("offline"),
    func.coalesce(func.sum(case((NET > 0, 1), else_=0)), 0).label("donations"),
).where(_COUNTED)


def _number_of(rows: Select[Any]) -> Select[Any]:
    return select(func.count()).select_from(rows.subquery())


_DONORS: Final = (
    _number_of(
        select(payments.c.donor_id)
        .where(_COUNTED, payments.c.donor_id.is_not(None))
        .group_by(payments.c.donor_id)
        .having(func.sum(NET) > 0)
    ),
    _number_of(select(payments.c.payment_id).where(_COUNTED, payments.c.donor_id.is_(None), NET > 0)),
)
_PLEDGED: Final = select(func.coalesce(func.sum(pledges.c.amount), 0)).where(
    pledges.c.drive_id == bindparam("of_drive"), pledges.c.open, ~pledges.c.paid
)

_MATCHED: Final = select(func.coalesce(func.sum(pools.c.used), 0)).where(
    pools.c.drive_id == bindparam("of_drive")
)


class SumDifference(NamedTuple):
    """A stored sum that differs from its recount: its name, its currency, and both in minor units.

    Numbers of gifts and donors have no currency.
    """

    name: str
    currency: str | None
    stored: int
    recounted: int


def sum_differences(transaction: SyncTransaction, drive_id: str) -> list[SumDifference]:
    """The stored sums of a drive, its processor money and its creators that differ from their recount."""
    row = transaction.execute(_STORED, {"of_drive": drive_id}).first()
    if row is None:
        return []
    found = [
        SumDifference(
            name, None if name in ("donations", "donors") else row.currency, row._mapping[name], units
        )
        for name, units in recount(transaction, drive_id).items()
        if row._mapping[name] != units
    ]
    pairs = _pairs(transaction, drive_id, *_CLEARINGS)
    for currency, (stored, recounted) in sorted(pairs.items()):
        names = ("processor money", "held")
        found += [
            SumDifference(name, currency, *both)
            for name, *both in zip(names, stored, recounted, strict=True)
            if both[0] != both[1]
        ]
    for creator, (stored, recounted) in sorted(_pairs(transaction, drive_id, *_CREATORS).items()):
        found += [
            SumDifference(f"{name} of {creator}", currency, *both)
            for name, currency, *both in zip(
                ("raised", "donations"), (row.currency, None), stored, recounted, strict=True
            )
            if both[0] != both[1]
        ]
    return found


_STORED: Final = select(drives).where(drives.c.drive_id == bindparam("of_drive"))
_CLEARINGS: Final = (
    select(clearings.c.currency, clearings.c.net, clearings.c.held).where(
        clearings.c.drive_id == bindparam("of_drive")
    ),
    select(payments.c.currency, func.sum(GIVEN_NET), func.sum(case((payments.c.counted, 0), else_=NET)))
    .where(OF_DRIVE, BY_PROCESSOR)
    .group_by(payments.c.currency),
)
_CREATORS: Final = (
    select(creators.c.creator_id, creators.c.raised, creators.c.donations).where(
        creators.c.drive_id == bindparam("of_drive")
    ),
    select(
        payments.c.creator_id,
        func.sum(case((payments.c.counted, NET), else_=0)),
        func.sum(case((and_(payments.c.counted, NET > 0), 1), else_=0)),
    )
    .where(
        payments.c.creator_id.in_(
            select(creators.c.creator_id).where(creators.c.drive_id == bindparam("of_drive"))
        )
    )
    .group_by(payments.c.creator_id),
)


def _pairs(
    transaction: SyncTransaction, drive_id: str, stored: Select[Any], recounted: Select[Any]
) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Stored and recounted rows of (key, sum, sum) by key; a missing row has zeros."""
    was, now = (
        {key: (int(one), int(other)) for key, one, other in transaction.execute(each, {"of_drive": drive_id})}
        for each in (stored, recounted)
    )
    zeros = (0, 0)
    return {key: (was.get(key, zeros), now.get(key, zeros)) for key in was.keys() | now.keys()}
