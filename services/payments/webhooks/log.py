"""Stored webhooks for operators: listed, retried on request, pruned after their retention."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Row, delete, select, update

from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.http.fields import TimestampView, with_examples
from backbone.http.problems import NotFound, Problem
from services.payments.cursors import Position, read_position, save_positions
from services.payments.tables import APPLIED, IGNORED, QUARANTINED, WAITING, WEBHOOKS

State = Literal["waiting", "applied", "set_aside", "ignored"]

_STATES: Final[dict[State, int]] = {
    "waiting": WAITING,
    "applied": APPLIED,
    "set_aside": QUARANTINED,
    "ignored": IGNORED,
}
_NAMES: Final = {number: name for name, number in _STATES.items()}
_SHOWN: Final = tuple(column for column in WEBHOOKS.c if column.name != "body")
_DONE: Final = (APPLIED, IGNORED)

IDS_KEPT: Final = timedelta(days=35)
"""Stripe lists events for 30 days (https://docs.stripe.com/api/events): repeats arrive until then."""

BODIES: Final = "webhooks.bodies"
"""Position: the number up to which the bodies of events were emptied."""


class WebhookView(BaseModel):
    """A stored Stripe event, without its body."""

    model_config = with_examples(
        {
            "id": "evt_1Q2x3Y4z",
            "type": "charge.refunded",
            "state": "set_aside",
            "tries": 3,
            "reason": "an unknown refund status",
            "created_at": "2030-01-07T18:00:00.000Z",
            "received_at": "2030-01-07T18:00:01.000Z",
            "next_try_at": "2030-01-07T18:05:01.000Z",
        }
    )

    id: str = Field(description="Stripe's id of the event.")
    type: str
    state: State = Field(
        description="`set_aside`: it could not be applied and is retried at `next_try_at`, with exponential "
        "backoff. `ignored`: it is not for this installation; `reason` is `foreign` (no metadata of ours), "
        "`other_mode`, `other_account` or `thin`."
    )
    tries: int = Field(description="How many times applying it failed.")
    reason: str | None = Field(description="Why it is quarantined or ignored.")
    created_at: TimestampView = Field(description="When Stripe says that it happened.")
    received_at: TimestampView
    next_try_at: TimestampView | None


class WebhookPage(BaseModel):
    """A page of stored events, newest first; pass `next` as `after` for the next page."""

    data: list[WebhookView]
    next: str | None


class TextIsGone(Problem):
    """The ignored event is so old that its body is no longer stored."""

    status, slug, title = 409, "webhook-text-gone", "The event's body is no longer stored"


async def list_webhooks(
    database: Database, state: State | None, after: int | None, limit: int
) -> dict[str, Any]:
    """A page of webhooks in one state, or in any."""
    page = select(*_SHOWN).order_by(WEBHOOKS.c.number.desc()).limit(limit + 1)
    if state is not None:
        page = page.where(WEBHOOKS.c.state == _STATES[state])
    if after is not None:
        page = page.where(WEBHOOKS.c.number < after)
    async with database.reading() as session:
        rows = (await session.execute(page)).all()
    more = len(rows) > limit
    return {
        "data": [_view(row) for row in rows[:limit]],
        "next": str(rows[limit - 1].number) if more else None,
    }


async def retry_webhook(database: Database, event_id: str, clock: Clock) -> dict[str, Any]:
    """Schedule a quarantined or ignored webhook for an immediate retry; others are left unchanged.

    Returns its view. Raises `NotFound`, and `TextIsGone` where the body is no longer stored.
    """
    this = WEBHOOKS.c.event_id == event_id
    async with database.transaction() as session:
        found = await session.execute(select(WEBHOOKS.c.state, WEBHOOKS.c.body).where(this).with_for_update())
        row = found.first()
        if row is None:
            raise NotFound(f"No stored webhook has the id {event_id}.")
        if row.state in (QUARANTINED, IGNORED):
            if not row.body:
                raise TextIsGone
            # Not WAITING: waiting webhooks are applied before newer ones, and hold the watermark back.
            again = {"state": QUARANTINED, "next_try_at": clock.now()}
            await session.execute(update(WEBHOOKS).where(this).values(again))
        return _view((await session.execute(select(*_SHOWN).where(this))).one())


def _view(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.event_id,
        "type": row.type,
        "state": _NAMES[row.state],
        "tries": row.tries,
        "reason": row.reason,
        "created_at": rfc3339(row.created_at),
        "received_at": rfc3339(row.received_at),
        "next_try_at": None if row.next_try_at is None else rfc3339(row.next_try_at),
    }


async def prune_texts(database: Database, before: datetime, limit: int) -> int:
    """Empty the bodies of done events (applied or ignored) received before `before`; 0 once none are left.

    One step through the table by number; returns how many events it passed, at most `limit`. An event that
    a retry has quarantined meanwhile keeps its body until the whole row is pruned.
    """
    kept = await read_position(database, BODIES)
    number = WEBHOOKS.c.number
    following = select(number, WEBHOOKS.c.state, WEBHOOKS.c.received_at).order_by(number).limit(limit)
    async with database.lossy_transaction() as session:
        rows = await session.execute(following.where(number > (kept.cursor if kept else 0)))
        old = list(takewhile(lambda row: row.received_at < before, rows))
        done = [row.number for row in old if row.state in _DONE]
        if done:
            still = WEBHOOKS.c.state.in_(_DONE)  # a retry may have been requested since they were read
            await session.execute(update(WEBHOOKS).where(number.in_(done), still).values(body=b""))
    if old:
        await save_positions(database, {BODIES: Position(old[-1].number)})
    return len(old)


async def prune_applied(database: Database, before: datetime, limit: int) -> int:
    """Delete up to `limit` done events received before `before`; 0 once none are left.

    Only the `limit` oldest are read, so that a table without old events is not scanned.
    """
    columns = (WEBHOOKS.c.number, WEBHOOKS.c.received_at)
    oldest = select(*columns).where(WEBHOOKS.c.state.in_(_DONE)).order_by(WEBHOOKS.c.number).limit(limit)
    window = oldest.subquery()
    async with database.lossy_transaction() as session:
        rows = await session.execute(select(window.c.number).where(window.c.received_at < before))
        old = [row.number for row in rows]
        if old:
            still = WEBHOOKS.c.state.in_(_DONE)
            await session.execute(delete(WEBHOOKS).where(WEBHOOKS.c.number.in_(old), still))
    return len(old)
