"""Builds a drive's sums again from its log and its stored payments, and compares them with what is stored.

Built again are: the drive's captured, refunded, disputed, pledged, and its numbers of gifts and donors; the
processor's money by currency with its held part; each creator's amount, gifts and moment; each donor's net;
and the boards' sums of donors, sources and windows, which are computed anew in the background
(`starting_anew.py`). Not built again are the log, which never changes, the stored payments and pledges, from
which the sums follow, and matching pools, whose states they contain.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from backbone.database.transaction import SyncTransaction
from services.leaderboard import sequencer
from services.leaderboard.auditing import LoggedDifference, log_differences
from services.leaderboard.recounting import BY_PROCESSOR, GIVEN_NET, SumDifference, recount, sum_differences
from services.leaderboard.statements import statements
from services.leaderboard.sums import NET, OF_DRIVE, RANKED, Ranked
from services.leaderboard.tables import NEVER_SUMMED, clearings, creators, donors, drive_log, drives, payments

MAX_NAMED: Final = 100
"""Donors and sources whose sums differ that are named for each table; more are not looked for."""


class Rebuilt(NamedTuple):
    """What differed between the stored sums and those built again.

    `log` has the payments of which the log and the stored row differ: then nothing is written, because either
    may be wrong. `written` is whether the sums were replaced.
    """

    sums: list[SumDifference]
    log: list[LoggedDifference]
    written: bool


def rebuild(transaction: SyncTransaction, drive_id: str, *, write: bool) -> Rebuilt:
    """Compare a drive's sums with those that its log and payments give, and with `write` replace them.

    The drive's row is locked meanwhile, so no payment of the drive is counted. Raises `LookupError` for an
    unknown drive.
    """
    if transaction.execute(_KNOWN, {"of_drive": drive_id}).first() is None:
        raise LookupError(drive_id)
    if write:
        sequencer.lock(transaction, [drive_id])
    log = log_differences(transaction, drive_id)
    sums = [
        *sum_differences(transaction, drive_id),
        *_raised_of_log(transaction, drive_id),
        *_differences(transaction, drive_id, "net of donor", _DONORS),
        *(found for ranked in _BOARDS for found in _board_differences(transaction, drive_id, ranked)),
    ]
    if write and not log:
        _write(transaction, drive_id)
    return Rebuilt(sums, log, write and not log)


_OF_DRIVE: Final = drives.c.drive_id == bindparam("of_drive")
_KNOWN: Final = select(drives.c.drive_id).where(_OF_DRIVE)
_BOARDS: Final = tuple(one for one in RANKED if one.in_all)


def _raised_of_log(transaction: SyncTransaction, drive_id: str) -> list[SumDifference]:
    """The drive's `raised` and that of the last row of its log, where they differ."""
    row = transaction.execute(_RAISED, {"of_drive": drive_id}).one()
    logged = transaction.execute(_LAST_ROW, {"of_drive": drive_id, "of_epoch": row.epoch}).first()
    raised = 0 if logged is None else logged.raised_after
    return [] if row.raised == raised else [SumDifference("raised", row.currency, row.raised, raised)]


_RAISED: Final = select(
    drives.c.epoch,
    drives.c.currency,
    (drives.c.captured + drives.c.offline + drives.c.matched - drives.c.refunded - drives.c.disputed).label(
        "raised"
    ),
).where(_OF_DRIVE)
_LAST_ROW: Final = (
    select(drive_log.c.raised_after)
    .where(drive_log.c.drive_id == bindparam("of_drive"), drive_log.c.epoch == bindparam("of_epoch"))
    .order_by(drive_log.c.sequence.desc())
    .limit(1)
)


def _compared(stored: Select[Any], recounted: Select[Any]) -> Select[Any]:
    """The keys for which the two select other sums, with both; each selects a key and a sum."""
    key, kept = stored.selected_columns
    counted_key, counted = recounted.selected_columns
    both = union_all(
        stored.with_only_columns(key.label("key"), kept.label("stored"), literal(0).label("counted")),
        recounted.with_only_columns(counted_key, literal(0), counted),
    ).subquery("both_sides")
    was, now = func.sum(both.c.stored), func.sum(both.c.counted)
    return (
        select(both.c.key, was, now)
        .group_by(both.c.key)
        .having(was != now)
        .order_by(both.c.key)
        .limit(MAX_NAMED)
    )


_COUNTED: Final = and_(OF_DRIVE, payments.c.counted)
_DONORS: Final = _compared(
    select(donors.c.donor_id, donors.c.net).where(donors.c.drive_id == bindparam("of_drive")),
    select(payments.c.donor_id, NET).where(_COUNTED, payments.c.donor_id.is_not(None)),
)


def _differences(
    transaction: SyncTransaction, drive_id: str, name: str, compared: Select[Any]
) -> list[SumDifference]:
    return [
        SumDifference(f"{name} {key}", None, int(stored), int(counted))
        for key, stored, counted in transaction.execute(compared, {"of_drive": drive_id})
    ]


def _board_differences(transaction: SyncTransaction, drive_id: str, ranked: Ranked) -> list[SumDifference]:
    """The sums of a board that differ; none while the drive's boards lack payments."""
    if transaction.execute(_SUMMED, {"of_drive": drive_id}).first() is None:
        return []
    table, key = ranked.table, payments.c[ranked.named]
    gifts = case((literal_column("0") < NET, 1), else_=0)
    found: list[SumDifference] = []
    pairs: tuple[tuple[str, ColumnElement[int]], ...] = (("raised", NET), ("donations", gifts))
    for name, value in pairs:
        stored = select(ranked.key, table.c[name]).where(table.c.drive_id == bindparam("of_drive"))
        counted = select(key, value).where(_COUNTED, key.is_not(None))
        compared = _compared(stored, counted)
        found += _differences(transaction, drive_id, f"{name} of {ranked.named}", compared)
    return found


_SUMMED: Final = select(drives.c.drive_id).where(_OF_DRIVE, drives.c.last_number == drives.c.summed_number)


def _write(transaction: SyncTransaction, drive_id: str) -> None:
    """Replace the sums of a drive whose row is locked; the boards' sums begin anew."""
    of_drive = {"of_drive": drive_id}
    values = {f"new_{name}": units for name, units in recount(transaction, drive_id).items()}
    transaction.execute(_REPLACE, of_drive | values)
    for statement in (_NO_CLEARINGS, _CLEARINGS, _CREATORS, _NO_NETS):
        transaction.execute(statement, of_drive)
    transaction.execute(_nets(transaction.dialect.name), of_drive)
    ids = [row.creator_id for row in transaction.execute(_CREATORS_OF, of_drive)]
    if ids:
        again = [{"of_creator": one} for one in ids]
        transaction.execute(statements(transaction).recompute_reached_at, again)
    sequencer.request_publication(transaction, [drive_id])


_REPLACE: Final = (
    update(drives)
    .where(_OF_DRIVE)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                *("captured", "refunded", "disputed", "offline", "matched"),
                *("donations", "donors", "pledged"),
            )
        }
        | {
            "revision": drives.c.revision + 1,
            "summed_number": NEVER_SUMMED,
            "summed_sequence": -1,
        }
    )
)
_NO_CLEARINGS: Final = delete(clearings).where(clearings.c.drive_id == bindparam("of_drive"))
_SUM: Final = cast(func.sum(NET), BigInteger)
_CLEARINGS: Final = clearings.insert().from_select(
    ["drive_id", "currency", "net", "held"],
    select(
        payments.c.drive_id,
        payments.c.currency,
        cast(func.sum(GIVEN_NET), BigInteger),
        cast(func.sum(case((payments.c.counted, 0), else_=NET)), BigInteger),
    )
    .where(OF_DRIVE, BY_PROCESSOR)
    .group_by(payments.c.drive_id, payments.c.currency),
)
_OF_CREATOR: Final = and_(payments.c.creator_id == creators.c.creator_id, payments.c.counted)
_CREATORS: Final = (
    update(creators)
    .where(creators.c.drive_id == bindparam("of_drive"))
    .values(
        raised=select(func.coalesce(_SUM, 0)).where(_OF_CREATOR).scalar_subquery(),
        donations=select(func.count()).select_from(payments).where(_OF_CREATOR, NET > 0).scalar_subquery(),
    )
)
_CREATORS_OF: Final = (
    select(creators.c.creator_id)
    .where(creators.c.drive_id == bindparam("of_drive"))
    .order_by(creators.c.creator_id)
)
_NO_NETS: Final = update(donors).where(donors.c.drive_id == bindparam("of_drive")).values(net=0)


def _nets(dialect: str) -> Any:
    """Sets each donor's net; donors whose row is missing get one."""
    found = (
        select(payments.c.drive_id, payments.c.donor_id, _SUM, *([literal_column("0")] * 6))
        .where(_COUNTED, payments.c.donor_id.is_not(None))
        .group_by(payments.c.drive_id, payments.c.donor_id)
    )
    sums = ["raised", "donations", "day_raised", "day_donations", "hour_raised", "hour_donations"]
    made = (sqlite if dialect == "sqlite" else postgresql).insert(donors)
    inserted = made.from_select(["drive_id", "donor_id", "net", *sums], found)
    return inserted.on_conflict_do_update(
        index_elements=list(donors.primary_key), set_={"net": made.excluded.net}
    )
