"""Reads of decisions: the history of a message, and the newest decisions of a drive."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import BaseModel, Field
from sqlalchemy import Row, String, and_, bindparam, or_, select

from backbone.clock import rfc3339
from backbone.contracts.pledges import MessageState
from backbone.database.columns import Utc, from_microseconds, microseconds
from backbone.database.transaction import Transaction
from backbone.http.fields import PledgeIdView, TimestampView
from services.pledges.donor_texts import visible
from services.pledges.tables import DECISIONS


class DecisionView(BaseModel):
    """A step in a message's history. Version 0 is the filters' decision, without a key.

    `moderator` is the name that the moderator gave; `key` is the proof.
    """

    version: int
    before: Annotated[MessageState | None, Field(alias="from")]
    to: MessageState
    at: TimestampView
    key: str | None
    partner: str | None
    moderator: str | None
    note: str | None


class DecisionList(BaseModel):
    """A page of a message's history, oldest first."""

    data: list[DecisionView]
    next: str | None


class DriveDecisionView(DecisionView):
    """A decision about one of a drive's messages."""

    pledge: PledgeIdView


class DriveDecisionList(BaseModel):
    """A page of the decisions about a drive's messages, newest first."""

    data: list[DriveDecisionView]
    next: str | None


class Place(NamedTuple):
    """A decision's place in the list of its drive."""

    at: datetime
    pledge: str
    version: int

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """The place of a row of `decisions`."""
        return cls(row.at, row.pledge_id, row.version)

    @classmethod
    def read(cls, cursor: str) -> Self:
        """The place that `str` of it, of the form `CURSOR`, names."""
        at, pledge, version = cursor.split("_")
        return cls(from_microseconds(int(at)), f"plg_{pledge}", int(version))

    def __str__(self) -> str:
        return f"{microseconds(self.at)}_{self.pledge.removeprefix('plg_')}_{self.version}"


CURSOR: Final = "[0-9]{1,17}_[0-9a-z]{26}_[0-9]{1,9}"
"""The form of a place as text: a moment before the year 5139, and numbers that both stores take."""

_HISTORY: Final = (
    select(DECISIONS)
    .where(DECISIONS.c.pledge_id == bindparam("pledge"), DECISIONS.c.version > bindparam("after"))
    .order_by(DECISIONS.c.version)
    .limit(bindparam("most"))
)
_OF_DRIVE: Final = (
    select(DECISIONS)
    .where(DECISIONS.c.drive_id == bindparam("drive"))
    .order_by(DECISIONS.c.at.desc(), DECISIONS.c.pledge_id.desc(), DECISIONS.c.version.desc())
    .limit(bindparam("most"))
)
_AT: Final = bindparam("before_at", type_=Utc)
_PLEDGE: Final = bindparam("before_pledge", type_=String)
_OF_DRIVE_AFTER: Final = _OF_DRIVE.where(
    DECISIONS.c.at <= _AT,
    or_(
        DECISIONS.c.at < _AT,
        DECISIONS.c.pledge_id < _PLEDGE,
        and_(DECISIONS.c.pledge_id == _PLEDGE, DECISIONS.c.version < bindparam("before_version")),
    ),
)


async def message_history(
    session: Transaction, row: Row[Any], after: int | None, limit: int
) -> dict[str, Any]:
    """A page of the decisions about the message in `row`, oldest first.

    The first one, version 0, is that of the filters. `after` is the version of the last one read.
    """
    values = {"pledge": row.pledge_id, "after": after or 0, "most": limit + 1}
    rows = (await session.execute(_HISTORY, values)).all()
    steps = [_step(one) for one in rows]
    if after is None:
        steps.insert(0, _filters_decision(row, rows[0].from_state if rows else row.state))
    following = str(steps[limit - 1]["version"]) if len(steps) > limit else None
    return {"data": steps[:limit], "next": following}


async def drive_decisions(
    session: Transaction, drive_id: str, after: Place | None, limit: int
) -> dict[str, Any]:
    """A page of the decisions about a drive's messages, newest first."""
    values: dict[str, Any] = {"drive": drive_id, "most": limit + 1}
    statement = _OF_DRIVE
    if after is not None:
        statement = _OF_DRIVE_AFTER
        values |= {"before_at": after.at, "before_pledge": after.pledge, "before_version": after.version}
    rows = (await session.execute(statement, values)).all()
    following = str(Place.of(rows[limit - 1])) if len(rows) > limit else None
    return {"data": [{"pledge": row.pledge_id, **_step(row)} for row in rows[:limit]], "next": following}


def _filters_decision(row: Row[Any], state: str) -> dict[str, Any]:
    nobody = {"key": None, "partner": None, "moderator": None, "note": None}
    return {"version": 0, "from": None, "to": state, "at": rfc3339(row.made_at), **nobody}


def _step(row: Row[Any]) -> dict[str, Any]:
    return {
        "version": row.version,
        "from": row.from_state,
        "to": row.to_state,
        "at": rfc3339(row.at),
        "key": row.key_id,
        "partner": row.partner,
        "moderator": visible(row.moderator or "") or None,
        "note": row.note,
    }
