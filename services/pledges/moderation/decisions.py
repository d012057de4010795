"""Decisions of moderators: one transaction each, in which leaderboard is told through the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row, bindparam, insert, select, update

from backbone.clock import Clock, rfc3339
from backbone.contracts.pledges import MessageState
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Forbidden, NotFound
from backbone.messaging.outbox import announce
from services.pledges.donor_texts import visible
from services.pledges.moderation.messages import NO_MESSAGE, message_json, message_row
from services.pledges.moderation.states import Action, MessageDecided, next_state
from services.pledges.requests import DecisionRequest
from services.pledges.tables import DECISIONS, DONOR_TEXTS, PLEDGES
from services.pledges.views import message_moderated

_LOCK: Final = select(PLEDGES.c.id).where(PLEDGES.c.id == bindparam("pledge")).with_for_update()
"""The pledge, not its texts: those may not be there, and erasing them needs no decision's lock."""


class Decisions:
    """Changes the states of messages."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def decide(
        self,
        pledge_id: str,
        action: Action,
        request: DecisionRequest,
        caller: Caller,
        drive: str | None = None,
    ) -> dict[str, Any]:
        """Apply `action` to the message of a pledge; a repeat changes nothing and is not recorded.

        The first approval of a message that the filters passed is recorded: it shows a link too. With `drive`
        a message of another drive is not found.

        Raises NotFound, Forbidden, NotYourDrive, IllegalDecision, and MessageDecided where another moderator
        decided otherwise since the version that this one saw.
        """
        async with self._database.transaction() as session:
            await session.execute(_LOCK, {"pledge": pledge_id})
            row = authorized(await message_row(session, pledge_id, drive), caller)
            state = MessageState(row.state)
            after = next_state(state, action)
            changed = after is not state or (action is Action.APPROVE and row.version == 0)
            if changed:
                await self._check_seen(row, request)
                row = await self._store(session, row, after, request, caller)
        crash_point("pledges.moderation.after_commit")
        return message_json(row) | {"changed": changed}

    async def _check_seen(self, row: Row[Any], request: DecisionRequest) -> None:
        if request.seen_version is not None and request.seen_version != row.version:
            raise MessageDecided(
                f"{_author(row)} set it to {row.state} at {rfc3339(row.decided_at)}."
                if row.key_id is not None
                else f"It is {row.state}, at version {row.version}."
            )

    async def _store(
        self,
        session: Transaction,
        row: Row[Any],
        after: MessageState,
        request: DecisionRequest,
        caller: Caller,
    ) -> Row[Any]:
        decision = {
            "pledge_id": row.pledge_id,
            "version": row.version + 1,
            "at": self._clock.now(),
            "key_id": caller.key_id,
            "partner": caller.partner,
            "from_state": row.state,
            "to_state": after.value,
            "note": request.note,
            "drive_id": row.drive_id,
            "moderator": request.moderator,
        }
        stored = (await session.execute(_INSERT, decision)).one()
        await session.execute(_UPDATE, _new_state(row, decision))
        await announce(session, [message_moderated(stored, row.drive_id)])
        return authorized(await message_row(session, row.pledge_id), caller)


def _author(row: Row[Any]) -> str:
    key = f"key {row.key_id} of {row.decided_by}"
    name = visible(row.moderator or "")
    return f"{name} ({key})" if name else f"A moderator ({key})"


def _new_state(row: Row[Any], decision: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "of_pledge": row.pledge_id,
        "now": decision["to_state"],
        "at_version": decision["version"],
        "of_drive": row.drive_id,
    }


_INSERT: Final = insert(DECISIONS).returning(*DECISIONS.c)
_UPDATE: Final = (
    update(DONOR_TEXTS)
    .where(DONOR_TEXTS.c.pledge_id == bindparam("of_pledge"))
    .values(state=bindparam("now"), decided=bindparam("at_version"), drive_id=bindparam("of_drive"))
)


def authorized(row: Row[Any] | None, caller: Caller) -> Row[Any]:
    """The row of a message that `caller` may moderate. Raises NotFound, Forbidden, NotYourDrive."""
    if row is None:
        raise NotFound(NO_MESSAGE)
    if caller.mode == "test" and not row.test:
        raise Forbidden("A test key works on test drives only.")
    caller.require_owned(row.owner)
    return row
