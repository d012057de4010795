"""Decisions about proposals, stored with who took them, and pages of proposals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Row, Select, Table, bindparam, insert, select, update

from backbone.clock import rfc3339
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import NotFound
from services.payments.approvals.states import Action, Status, next_status
from services.payments.approvals.tables import APPROVALS


class Decider(Protocol):
    """An API key and its partner."""

    @property
    def key_id(self) -> str: ...

    @property
    def partner(self) -> str: ...


class Decision(NamedTuple):
    """A decision to be taken: by whom, when, and why."""

    action: Action
    caller: Decider
    at: datetime
    reason: str | None = None
    seen: Status | None = None
    """The status in which the caller saw the proposal, where it said so."""


async def find(session: Transaction, table: Table, proposal_id: str, *, lock: bool = False) -> Row[Any]:
    """A row of `table`, locked for a decision where `lock` is set. Raises `NotFound`."""
    statement = select(table).where(table.c.id == bindparam("id"))
    row = (
        await session.execute(statement.with_for_update() if lock else statement, {"id": proposal_id})
    ).first()
    if row is None:
        raise NotFound("No such id.")
    return row


async def store(session: Transaction, table: Table, row: Mapping[str, Any], caller: Decider) -> None:
    """Insert a new proposal that `caller` recorded; it is pending."""
    decided = {"status": Status.PENDING.value, "asked_by": caller.key_id}
    await session.execute(insert(table), [{**row, **decided}])
    await _note(session, row["id"], Decision(Action.RECORD, caller, row["made_at"]))


async def decide(session: Transaction, table: Table, row: Row[Any], decision: Decision) -> Status:
    """Store the decision about a locked proposal; the status after it, which is the same for a repeat.

    Raises `SecondApproverNeeded` and `NotDecidable`.
    """
    before = Status(row.status)
    after = next_status(before, decision.action, row.asked_by, decision.caller.key_id, decision.seen)
    if after is before:
        return after
    values = {"status": after.value}
    if after is Status.REVERSAL_REQUESTED:
        decision = decision._replace(action=Action.REQUEST_REVERSAL)
        values["asked_by"] = decision.caller.key_id
    await session.execute(update(table).where(table.c.id == row.id).values(values))
    await _note(session, row.id, decision)
    return after


async def _note(session: Transaction, subject: str, decision: Decision) -> None:
    row = {
        "subject": subject,
        "action": decision.action.value,
        "key_id": decision.caller.key_id,
        "partner": decision.caller.partner,
        "reason": decision.reason,
        "at": decision.at,
    }
    await session.execute(insert(APPROVALS), [row])


async def histories(session: Transaction, subjects: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The steps of each of these proposals, oldest first."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await session.execute(_HISTORIES, {"subjects": subjects}):
        found[row.subject].append(
            {"action": row.action, "by": row.key_id, "reason": row.reason, "at": rfc3339(row.at)}
        )
    return found


_HISTORIES: Final = (
    select(APPROVALS).where(one_of(APPROVALS.c.subject, "subjects")).order_by(APPROVALS.c.number)
)


class Wanted(NamedTuple):
    """Which proposals are listed: of a drive or of all drives of the caller, in a status, after an id."""

    drive_id: str | None
    status: Status | None
    after: str | None
    limit: int


async def page(
    session: Transaction, table: Table, caller: Caller, wanted: Wanted
) -> tuple[Sequence[Row[Any]], str | None]:
    """Proposals, newest first, and the `after` of the next page (None at the end).

    Without a drive: those of the drives that the caller's partner owns; of all drives for an admin. A test
    key sees those of test drives only.
    """
    statement: Select[Any] = select(table).order_by(table.c.id.desc())
    if wanted.drive_id is not None:
        statement = statement.where(table.c.drive_id == wanted.drive_id)
    elif not caller.admin:
        statement = statement.where(table.c.partner == caller.partner)
    if caller.mode == "test":
        statement = statement.where(table.c.test)
    if wanted.status is not None:
        statement = statement.where(table.c.status == wanted.status.value)
    if wanted.after is not None:
        statement = statement.where(table.c.id < wanted.after)
    rows = (await session.execute(statement.limit(wanted.limit + 1))).all()
    shown = rows[: wanted.limit]
    return shown, shown[-1].id if len(rows) > wanted.limit else None
