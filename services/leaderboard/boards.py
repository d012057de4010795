"""Reads of the leaderboards: the first ranks, and the ranks around a place.

Ranks are by amount, then by `reached_at` (who reached the amount first), then by id. Who has no amount above
0 has no rank. Each row has its key, its sums, and what names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    FromClause,
    Row,
    Select,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from backbone.database.columns import Utc
from backbone.database.transaction import SyncTransaction
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


def top(transaction: SyncTransaction, drive_id: str, board: Board, window: Window, limit: int) -> Ranking:
    """The first `limit` ranks."""
    values = {"of_drive": drive_id, "most": limit}
    return _ranking(transaction, drive_id, board, transaction.execute(_first(board, window), values).all(), 0)


def top_creators(
    transaction: SyncTransaction, drive_id: str, currency: str, limit: int
) -> list[dict[str, Any]]:
    """The creators who raised most over all time, as the API shows them."""
    ranking = top(transaction, drive_id, "creators", "all", limit)
    return places("creators", ranking, currency, lambda _pledge: None)


def around(
    transaction: SyncTransaction, drive_id: str, board: Board, window: Window, limit: int, key: str
) -> Ranking | None:
    """The ranks around `key`, which is in the middle; None where it has no rank."""
    if board == "donors":
        return _around_donor(transaction, drive_id, window, limit, key)
    values = {"of_drive": drive_id, "key": key, "ahead": limit // 2, "most": limit}
    rows = transaction.execute(_numbered(board, window), values).all()
    return Ranking(rows, rows[0].place - 1, {}) if rows else None


@cache
def _numbered(board: Board, window: Window) -> Select[Any]:
    """The ranks around a key, numbered in one pass: a drive has thousands of creators at most."""
    found = _rows(board, window)
    order = found.c.raised.desc(), found.c.reached_at, found.c.key
    ranked = select(found, func.row_number().over(order_by=order).label("place")).cte("ranked")
    key: BindParameter[str] = bindparam("key")
    mine = select(ranked.c.place).where(ranked.c.key == key).scalar_subquery()
    first: BindParameter[int] = bindparam("ahead", type_=BigInteger)
    return (
        select(ranked).where(ranked.c.place >= mine - first).order_by(ranked.c.place).limit(bindparam("most"))
    )


def _around_donor(
    transaction: SyncTransaction, drive_id: str, window: Window, limit: int, key: str
) -> Ranking | None:
    """The same among the donors, of whom there may be millions."""
    statements = _around(window)
    me = transaction.execute(statements.me, {"of_drive": drive_id, "key": key}).first()
    if me is None:
        return None
    values = {"of_drive": drive_id, "raised": me.raised, "at": me.reached_at, "key": me.key}

    def keys(wanted: int, *found_by: Select[Any]) -> list[str]:
        found: list[str] = []
        for statement in found_by:
            if len(found) < wanted:
                rows = transaction.execute(statement, values | {"most": wanted - len(found)})
                found += (row.key for row in rows)
        return found

    before: int = sum(transaction.execute(each, values).scalar_one() for each in statements.counts)
    ahead = keys(min(before, limit // 2), statements.earlier, statements.above)
    page = [*reversed(ahead), *keys(limit - len(ahead), statements.later, statements.below)]
    rows = transaction.execute(statements.rows, {"of_drive": drive_id, "keys": page})
    by_key = {row.key: row for row in rows}
    return _ranking(transaction, drive_id, "donors", [by_key[each] for each in page], before - len(ahead))


def knows(transaction: SyncTransaction, drive_id: str, board: Board, key: str) -> bool:
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
    return transaction.execute(statement).first() is not None


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


def _ranking(
    transaction: SyncTransaction, drive_id: str, board: Board, rows: Sequence[Row[Any]], skipped: int
) -> Ranking:
    pledges: dict[str, str] = {}
    if board == "donors" and rows:
        named = {"of_drive": drive_id, "keys": [row.key for row in rows]}
        newest = transaction.execute(_NEWEST, named)
        pledges = {row.donor_id: row.pledge_id for row in newest if row.pledge_id is not None}
    return Ranking(rows, skipped, pledges)


@cache
def _first(board: Board, window: Window) -> Select[Any]:
    found = _rows(board, window)
    order = found.c.raised.desc(), found.c.reached_at, found.c.key
    return select(found).order_by(*order).limit(bindparam("most"))


class _Around(NamedTuple):
    """Statements about the neighbours of a row. They read an index only, and no rank twice."""

    me: Select[Any]
    counts: tuple[Select[Any], Select[Any]]
    """How many have more, and how many reached the same amount before."""
    earlier: Select[Any]
    """The keys of those who reached the same amount before, the nearest first."""
    above: Select[Any]
    """The keys of those with more, the nearest first."""
    later: Select[Any]
    """The key itself, and those of who reached the same amount later."""
    below: Select[Any]
    """The keys of those with less."""
    rows: Select[Any]


@cache
def _around(window: Window) -> _Around:
    found = _rows("donors", window)
    rows, known = found.c, _rows("donors", window, with_rank=False)
    raised, at = bindparam("raised", type_=BigInteger), bindparam("at", type_=Utc)
    key: BindParameter[str] = bindparam("key")
    same = rows.raised == raised
    earlier = same, rows.reached_at <= at, or_(rows.reached_at < at, rows.key < key)
    later = same, rows.reached_at >= at, or_(rows.reached_at > at, rows.key >= key)

    def nearest(*conditions: ColumnElement[bool], by: Sequence[ColumnElement[Any]]) -> Select[Any]:
        return select(rows.key).where(*conditions).order_by(*by).limit(bindparam("most"))

    up = rows.reached_at.desc(), rows.key.desc()
    down = rows.reached_at, rows.key
    counted = select(func.count()).select_from(found)
    return _Around(
        me=select(found).where(rows.key == key),
        counts=(counted.where(rows.raised > raised), counted.where(*earlier)),
        earlier=nearest(*earlier, by=up),
        above=nearest(rows.raised > raised, by=(rows.raised, *up)),
        later=nearest(*later, by=down),
        below=nearest(rows.raised < raised, by=(rows.raised.desc(), *down)),
        rows=select(known).where(known.c.key.in_(bindparam("keys", expanding=True))),
    )


@cache
def _rows(board: Board, window: Window, *, with_rank: bool = True) -> FromClause:
    """The rows of a board, with the columns key, raised, donations, reached_at.

    With a rank they have an amount above 0. The condition lets SQLite choose the index of a ranking, also
    where it knows the keys; a read of known keys leaves it out.
    """
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
    ).where(table.c.drive_id == bindparam("of_drive"))
    if with_rank:
        found = found.where(raised > literal_column("0"))
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
_NEWEST: Final = select(donors.c.donor_id, _newest).where(
    donors.c.drive_id == bindparam("of_drive"), donors.c.donor_id.in_(bindparam("keys", expanding=True))
)
