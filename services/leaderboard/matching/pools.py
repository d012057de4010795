"""Matching pools in a drive's figures: what they give is logged and added, open ones are in the totals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Executable, Row, bindparam, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from backbone.contracts import MatchingPoolChanged
from backbone.database.columns import Utc
from backbone.database.transaction import SyncTransaction
from backbone.money import as_json
from services.leaderboard import domain, sequencer
from services.leaderboard.logged_rows import LoggedRow
from services.leaderboard.matching.tables import pools
from services.leaderboard.statements import by_id
from services.leaderboard.tables import drives

MOST_SHOWN: Final = 20
"""Pools in a drive's totals; those with something left come first."""


def keep_pools(transaction: SyncTransaction, events: Sequence[MatchingPoolChanged]) -> list[LoggedRow]:
    """Store pools, log what each has given or got back since its stored state, and add it to its drive."""
    fresh = domain.newest(events, lambda one: one.pool_id)
    locked = sequencer.lock(transaction, (event.drive_id for event in fresh))
    known = by_id(transaction, pools.c.pool_id, [event.pool_id for event in fresh])
    rows: list[dict[str, Any]] = []
    for event in fresh:
        old = known.get(event.pool_id)
        if old is not None and old.version >= event.version:
            continue
        drive = locked[event.drive_id]
        drive.settle_currency(event.cap.currency)
        drive.log_matching(event.used.minor_units - (0 if old is None else old.used), event.changed_at)
        drive.note_moment(event.changed_at)
        drive.changed = True
        rows.append(_row(event))
        for moment in _later_changes(event):
            sequencer.request_publication(transaction, [event.drive_id], moment)
    if rows:
        transaction.execute(
            _keep(transaction.dialect.name), sorted(rows, key=lambda one: str(one["pool_id"]))
        )
    return sequencer.save(transaction, locked.values())


def _row(event: MatchingPoolChanged) -> dict[str, Any]:
    return {
        "pool_id": event.pool_id,
        "drive_id": event.drive_id,
        "version": event.version,
        "sponsor": event.sponsor,
        "ratio": event.ratio,
        "cap": event.cap.minor_units,
        "used": event.used.minor_units,
        "starts_at": event.starts_at,
        "ends_at": event.ends_at,
        "ended_at": event.ended_at,
        "creator_id": event.creator_id,
    }


def _later_changes(event: MatchingPoolChanged) -> Iterator[int]:
    """The seconds at which the pool begins or ceases to be shown without another event."""
    for moment in (event.starts_at, event.ends_at):
        if moment is not None and moment > event.changed_at:
            yield math.ceil(moment.timestamp())


@cache
def _keep(dialect: str) -> Executable:
    made: Any = (sqlite if dialect == "sqlite" else postgresql).insert(pools)
    new = {name: made.excluded[name] for name in pools.c.keys() if name != "pool_id"}  # noqa: SIM118
    statement: Executable = made.on_conflict_do_update(index_elements=[pools.c.pool_id], set_=new)
    return statement


HAS_POOLS: Final = (
    select(literal_column("1"))
    .select_from(pools)
    .where(pools.c.drive_id == drives.c.drive_id)
    .correlate(drives)
    .exists()
    .label("has_pools")
)
"""Whether a drive has any pool; read with the drive's row."""


def shown_pools(transaction: SyncTransaction, row: Row[Any], now: datetime) -> Sequence[Mapping[str, Any]]:
    """The member `matching` of the totals of the drive in `row` (with `HAS_POOLS`): pools open at `now`.

    It takes no statement for a drive without pools.
    """
    if not row.has_pools:
        return []
    found = transaction.execute(_OPEN, {"of_drive": row.drive_id, "now": now})
    return [
        {
            "id": pool.pool_id,
            "sponsor": pool.sponsor,
            "cap": as_json(pool.cap, row.currency),
            "used": as_json(pool.used, row.currency),
            "ratio": pool.ratio,
            "creator": pool.creator_id,
        }
        for pool in found
    ]


_now: Final = bindparam("now", type_=Utc)
_OPEN: Final = (
    select(pools)
    .where(pools.c.drive_id == bindparam("of_drive"), pools.c.starts_at <= _now)
    .where(or_(pools.c.ends_at.is_(None), pools.c.ends_at > _now))
    .where(or_(pools.c.ended_at.is_(None), pools.c.ended_at > _now))
    .order_by(pools.c.used >= pools.c.cap, pools.c.pool_id)
    .limit(literal_column(str(MOST_SHOWN)))
)
