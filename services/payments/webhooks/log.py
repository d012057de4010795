"""Stored webhooks as operators see them: listed, tried again on request, and forgotten in time."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Row, delete, select, update

from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
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
"""Stripe lists events for 30 days (https://docs.stripe.com/api/events): until then an id is a repeat's."""

BODIES: Final = "webhooks.bodies"
"""The number up to which the texts of events were emptied."""


class WebhookView(BaseModel):
    """A stored event of Stripe's, without its text."""

    id: str = Field(description="Stripe's id of the event.")
    type: str
    state: State = Field(
        description="`set_aside`: it could not be applied and is tried again at `next_try_at`, ever more "
        "rarely. `ignored`: it is not for us; `reason` is `foreign` (it names nothing of ours), "
        "`other_mode`, `other_account` or `thin`."
    )
    tries: int = Field(description="How many times applying it failed.")
    reason: str | None = Field(description="Why it is set aside or ignored.")
    created_at: str = Field(description="When Stripe says that it happened.")
    received_at: str
    next_try_at: str | None


class WebhookPage(BaseModel):
    """Stored events, the newest first; `next` goes into `after`."""

    data: list[WebhookView]
    next: str | None


class TextIsGone(Problem):
    """The event was ignored so long ago that its text is no longer stored."""

    status, slug, title = 409, "webhook-text-gone", "The event's text is no longer stored"


async def list_webhooks(
    database: Database, state: State | None, after: int | None, limit: int
) -> dict[str, Any]:
    """A page of webhooks, in one state or all."""
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
    """Have a webhook that is set aside or ignored tried again now; of others nothing changes.

    Raises `NotFound` and `TextIsGone`.
    """
    this = WEBHOOKS.c.event_id == event_id
    async with database.transaction() as session:
        found = await session.execute(select(WEBHOOKS.c.state, WEBHOOKS.c.body).where(this).with_for_update())
        row = found.first()
        if row is None:
            raise NotFound("No such webhook.")
        if row.state in (QUARANTINED, IGNORED):
            if not row.body:
                raise TextIsGone
            # Not as one that waits: what waits goes before what is new, and holds the watermark back.
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
    """Empty the texts of events received before `before` that were applied or ignored; 0 once it is done.

    A step through the table by number; how many of at most `limit` events it went past. One that is set
    aside meanwhile keeps its text until it is forgotten as a whole.
    """
    kept = await read_position(database, BODIES)
    number = WEBHOOKS.c.number
    following = select(number, WEBHOOKS.c.state, WEBHOOKS.c.received_at).order_by(number).limit(limit)
    async with database.lossy_transaction() as session:
        rows = await session.execute(following.where(number > (kept.cursor if kept else 0)))
        old = list(takewhile(lambda row: row.received_at < before, rows))
        done = [row.number for row in old if row.state in _DONE]
        if done:
            still = WEBHOOKS.c.state.in_(_DONE)  # a retry may have been asked for since they were read
            await session.execute(update(WEBHOOKS).where(number.in_(done), still).values(body=b""))
    if old:
        await save_positions(database, {BODIES: Position(old[-1].number)})
    return len(old)


async def prune_applied(database: Database, before: datetime, limit: int) -> int:
    """Delete up to `limit` events received before `before` that were applied or ignored; 0 once it is done.

    Only the `limit` oldest are looked at, so a table in which nothing is old is not read through.
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
