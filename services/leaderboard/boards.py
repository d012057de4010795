"""Reads of the leaderboards: the first ranks, and the ranks around somebody.

Ranks are by amount, then by `reached_at` (who reached the amount first), then by id. Who has no amount above
0 has no rank. Each row has its key, its sums, and what names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    FromClause,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from backbone.money import as_json
from services.leaderboard.domain import source_names
from services.leaderboard.sums import COUNTED_PAYMENTS
from services.leaderboard.tables import creators, donors, payments, sources

Board = Literal["creators", "donors", "teams", "sources"]
Window = Literal["all", "24h", "1h"]
_PREFIXES: Final = {"all": "", "24h": "day_", "1h": "hour_"}


def is_immediate(board: Board, window: Window) -> bool:
    """Whether the sums are kept with each payment's event: those of creators and teams over all time."""
    return window == "all" and board in ("creators", "teams")


class Ranking(NamedTuple):
    """A page of a board, and the payments in whose pledges the names of its donors are found."""

    rows: Sequence[Row[Any]]
    skipped: int
    pledges: dict[str, str]
    """By donor, the pledge of the newest gift; none for donors who are not named."""


def top(connection: Connection, drive_id: str, board: Board, window: Window, limit: int) -> Ranking:
    """The first `limit` ranks."""
    return _page(connection, drive_id, board, window, limit, 0)


def top_creators(connection: Connection, drive_id: str, currency: str, limit: int) -> list[dict[str, Any]]:
    """The creators who raised most over all time, as the API shows them."""
    ranking = top(connection, drive_id, "creators", "all", limit)
    return places("creators", ranking, currency, lambda _pledge: None)


def around(
    connection: Connection, drive_id: str, board: Board, window: Window, limit: int, key: str
) -> Ranking | None:
    """The ranks around `key`, which is in the middle; None where it has no rank."""
    rows = _rows(board, window)
    me = connection.execute(
        select(rows).where(rows.c.key == bindparam("me")), {"of_drive": drive_id, "me": key}
    ).first()
    if me is None:
        return None
    tied = and_(rows.c.raised == me.raised, rows.c.reached_at == me.reached_at, rows.c.key < me.key)
    earlier = and_(rows.c.raised == me.raised, rows.c.reached_at < me.reached_at)
    # The first condition repeats what the others imply: it is the one that an index is used for.
    ahead = select(func.count()).select_from(rows)
    ahead = ahead.where(rows.c.raised >= me.raised, or_(rows.c.raised > me.raised, earlier, tied))
    before: int = connection.execute(ahead, {"of_drive": drive_id}).scalar_one()
    return _page(connection, drive_id, board, window, limit, max(0, before - limit // 2))


def knows(connection: Connection, drive_id: str, board: Board, key: str) -> bool:
    """Whether the drive has such a creator, donor, team or source, though perhaps without a rank."""
    statement: Select[Any]
    match board:
        case "creators":
            known, of_drive = creators.c.creator_id, creators.c.drive_id
        case "teams":
            known, of_drive = creators.c.team, creators.c.drive_id
        case "donors":
            known, of_drive = donors.c.donor_id, donors.c.drive_id
        case "sources":
            known, of_drive = sources.c.source, sources.c.drive_id
    statement = select(known).where(of_drive == drive_id, known == key).limit(1)
    return connection.execute(statement).first() is not None


def places(
    board: Board, ranking: Ranking, currency: str, names: Callable[[str], str | None]
) -> list[dict[str, Any]]:
    """The places as the API shows them; `names` has the name of a donor by the pledge that gives it."""
    return [
        {
            "rank": rank,
            **_identity(board, row, ranking, names),
            "raised": as_json(row.raised, currency),
            "donations": row.donations,
        }
        for rank, row in enumerate(ranking.rows, ranking.skipped + 1)
    ]


def _identity(
    board: Board, row: Row[Any], ranking: Ranking, names: Callable[[str], str | None]
) -> dict[str, Any]:
    match board:
        case "creators":
            return {"creator": row.key, "slug": row.slug, "name": row.name}
        case "donors":
            pledge = ranking.pledges.get(row.key)
            return {"donor": row.key, "name": None if pledge is None else names(pledge)}
        case "teams":
            return {"team": row.key}
        case "sources":
            platform, campaign = source_names(row.key)
            return {"source": row.key, "platform": platform, "campaign": campaign}


def _page(
    connection: Connection, drive_id: str, board: Board, window: Window, limit: int, skip: int
) -> Ranking:
    found = connection.execute(
        _paging(board, window), {"of_drive": drive_id, "most": limit, "skip": skip}
    ).all()
    pledges: dict[str, str] = {}
    if board == "donors" and found:
        named = {"of_drive": drive_id, "keys": [row.key for row in found]}
        pledges = {row.donor_id: row.pledge_id for row in connection.execute(_NEWEST, named)}
    return Ranking(found, skip, pledges)


@cache
def _paging(board: Board, window: Window) -> Select[Any]:
    rows = _rows(board, window)
    return (
        select(rows)
        .order_by(rows.c.raised.desc(), rows.c.reached_at, rows.c.key)
        .limit(bindparam("most"))
        .offset(bindparam("skip"))
    )


@cache
def _rows(board: Board, window: Window) -> FromClause:
    """The rows of a board with an amount above 0, with the columns key, raised, donations, reached_at."""
    prefix = _PREFIXES[window]
    match board:
        case "creators":
            table, key, named = creators, creators.c.creator_id, [creators.c.slug, creators.c.name]
        case "donors":
            table, key, named = donors, donors.c.donor_id, []
        case "sources":
            table, key, named = sources, sources.c.source, []
        case "teams":
            return _teams(prefix)
    raised = table.c[f"{prefix}raised"]
    found = select(
        key.label("key"),
        raised.label("raised"),
        table.c[f"{prefix}donations"].label("donations"),
        table.c.reached_at,
        *named,
    ).where(table.c.drive_id == bindparam("of_drive"), raised > literal_column("0"))
    if table is creators:
        found = found.where(creators.c.version > 0)
    return found.subquery("board")


def _teams(prefix: str) -> FromClause:
    """The sums of each team's present creators. Its members reached the amount when the last of them did."""
    raised = func.sum(creators.c[f"{prefix}raised"])
    donations = creators.c[f"{prefix}donations"]
    found = (
        select(
            creators.c.team.label("key"),
            cast(raised, BigInteger).label("raised"),
            cast(func.sum(donations), BigInteger).label("donations"),
            func.max(case((donations > 0, creators.c.reached_at))).label("reached_at"),
        )
        .where(creators.c.drive_id == bindparam("of_drive"), creators.c.team.is_not(None))
        .group_by(creators.c.team)
        .having(raised > literal_column("0"))
    )
    return found.subquery("board")


_newest: Final = (
    select(payments.c.pledge_id)
    .where(
        payments.c.donor_key == donors.c.donor_id,
        payments.c.donor_id == donors.c.donor_id,
        payments.c.drive_id == donors.c.drive_id,
        COUNTED_PAYMENTS,
    )
    .order_by(payments.c.captured_at.desc(), payments.c.payment_id.desc())
    .limit(1)
    .correlate(donors)
    .scalar_subquery()
    .label("pledge_id")
)
_named: Final = (
    select(donors.c.donor_id, _newest)
    .where(
        donors.c.drive_id == bindparam("of_drive"), donors.c.donor_id.in_(bindparam("keys", expanding=True))
    )
    .subquery("named")
)
_NEWEST: Final = select(_named).where(_named.c.pledge_id.is_not(None))
