"""Reads of messages for moderators, and their views."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Row, and_, bindparam, func, select

from backbone.clock import rfc3339
from backbone.contracts.pledges import MessageState, PledgeStatus
from backbone.database.transaction import Transaction
from backbone.http.fields import (
    CreatorIdView,
    DriveIdView,
    MoneyView,
    PledgeIdView,
    TimestampView,
    with_examples,
)
from backbone.money import as_json
from services.pledges.donor_texts import visible
from services.pledges.links import has_link
from services.pledges.tables import DECISIONS, DONOR_TEXTS, DRIVES, PLEDGES

NO_MESSAGE: Final = "This pledge has no name or message that could be shown."


class DecidedView(BaseModel):
    """The newest decision about a message."""

    at: TimestampView
    key: str
    partner: str
    moderator: str | None
    note: str | None


_EXAMPLE: Final = {
    "pledge": "plg_01frtz5n00000000000000000c",
    "drive": "drv_01frtz5n00000000000000000a",
    "creator": None,
    "state": "held",
    "version": 0,
    "name": "Layla",
    "anonymous": False,
    "message": "Call me: 050 123 4567",
    "links_hidden": False,
    "reasons": {"message": ["phone"]},
    "amount": {"currency": "USD", "value": "25.00"},
    "status": "paid",
    "created_at": "2030-01-07T18:00:00.000Z",
    "decided": None,
}


class MessageView(BaseModel):
    """The name and message of a pledge as a moderator sees them, without invisible characters.

    `reasons` says for each field why it was held. `version` counts the decisions.
    """

    model_config = with_examples(_EXAMPLE)

    pledge: PledgeIdView
    drive: DriveIdView
    creator: CreatorIdView | None
    state: MessageState
    version: int
    name: str | None
    anonymous: bool
    message: str | None
    links_hidden: bool
    reasons: dict[str, list[str]]
    amount: MoneyView
    status: PledgeStatus
    created_at: TimestampView
    decided: DecidedView | None


class DecidedMessageView(MessageView):
    """A message after a decision. `changed` is false for a repeat, which decided nothing."""

    model_config = with_examples(_EXAMPLE | {"version": 1, "state": "approved", "changed": True})

    changed: bool


class MessageList(BaseModel):
    """A page of messages, newest first."""

    data: list[MessageView]
    next: str | None


_OF_PLEDGE: Final = ("drive_id", "creator_id", "amount", "currency", "status", "made_at", "test")
_MESSAGES: Final = (
    select(
        DONOR_TEXTS.c.pledge_id,
        func.coalesce(DONOR_TEXTS.c.state, MessageState.APPROVED.value).label("state"),
        DONOR_TEXTS.c.name,
        DONOR_TEXTS.c.message,
        DONOR_TEXTS.c.anonymous,
        DONOR_TEXTS.c.held,
        DONOR_TEXTS.c.decided.label("version"),
        *(PLEDGES.c[name] for name in _OF_PLEDGE),
        DRIVES.c.partner.label("owner"),
        DRIVES.c.slug,
        DONOR_TEXTS.c.state.is_not(None).label("moderated"),
        DECISIONS.c.at.label("decided_at"),
        DECISIONS.c.partner.label("decided_by"),
        DECISIONS.c.key_id,
        DECISIONS.c.moderator,
        DECISIONS.c.note,
    )
    .join(PLEDGES, PLEDGES.c.id == DONOR_TEXTS.c.pledge_id)
    .join(DRIVES, DRIVES.c.id == PLEDGES.c.drive_id)
    .outerjoin(
        DECISIONS,
        and_(DECISIONS.c.pledge_id == DONOR_TEXTS.c.pledge_id, DECISIONS.c.version == DONOR_TEXTS.c.decided),
    )
)
_ONE: Final = _MESSAGES.where(DONOR_TEXTS.c.pledge_id == bindparam("pledge"))
_PAGE: Final = (
    _MESSAGES.where(
        DONOR_TEXTS.c.drive_id == bindparam("drive"), DONOR_TEXTS.c.state == bindparam("in_state")
    )
    .order_by(DONOR_TEXTS.c.pledge_id.desc())
    .limit(bindparam("most"))
)
_PAGE_AFTER: Final = _PAGE.where(DONOR_TEXTS.c.pledge_id < bindparam("after"))


async def message_row(session: Transaction, pledge_id: str, drive: str | None = None) -> Any:
    """The message of a pledge with its drive's owner; None where it has no text that could be shown.

    What is listed is always found. With `drive`, an id or slug, None also for a message of another drive.
    """
    row = (await session.execute(_ONE, {"pledge": pledge_id})).first()
    if row is None or drive not in (None, row.drive_id, row.slug):
        return None
    has_text = visible(row.message or "") or (not row.anonymous and visible(row.name or ""))
    return row if row.moderated or has_text else None


async def message_page(
    session: Transaction, drive_id: str, state: MessageState, after: str | None, limit: int
) -> dict[str, Any]:
    """A page of a drive's messages in a state, newest first."""
    values: dict[str, Any] = {"drive": drive_id, "in_state": state.value, "most": limit + 1}
    page = _PAGE if after is None else _PAGE_AFTER
    rows = (await session.execute(page, values | ({} if after is None else {"after": after}))).all()
    following = rows[limit - 1].pledge_id if len(rows) > limit else None
    return {"data": [message_json(row) for row in rows[:limit]], "next": following}


def message_json(row: Row[Any]) -> dict[str, Any]:
    """A message in the shape of `MessageView`."""
    return {
        "pledge": row.pledge_id,
        "drive": row.drive_id,
        "creator": row.creator_id,
        "state": row.state,
        "version": row.version,
        "name": None if row.anonymous else visible(row.name or "") or None,
        "anonymous": row.anonymous,
        "message": visible(row.message or "") or None,
        "links_hidden": any(has_link(visible(text)) for text in (row.name, row.message) if text),
        "reasons": row.held or {},
        "amount": as_json(row.amount, row.currency),
        "status": row.status,
        "created_at": rfc3339(row.made_at),
        "decided": None
        if row.key_id is None
        else {
            "at": rfc3339(row.decided_at),
            "key": row.key_id,
            "partner": row.decided_by,
            "moderator": visible(row.moderator or "") or None,
            "note": row.note,
        },
    }
