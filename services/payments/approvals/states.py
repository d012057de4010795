"""The rules of approvals, without I/O: which status follows a decision, and whose key may take it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from backbone.http.problems import Conflict


class Status(StrEnum):
    """`pending → approved | rejected`, and `approved → reversal_requested → reversed`.

    What a reversal is requested for still counts.
    """

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVERSAL_REQUESTED = "reversal_requested"
    REVERSED = "reversed"


class Action(StrEnum):
    """What a key did. `record` is the first of each history and no decision."""

    RECORD = "record"
    APPROVE = "approve"
    REJECT = "reject"
    REQUEST_REVERSAL = "request_reversal"
    REVERSE = "reverse"


class SecondApproverNeeded(Conflict):
    slug, title = "second-approver-needed", "Another API key has to decide this"


class NotDecidable(Conflict):
    slug, title = "approval-state", "The state does not allow this decision"


_REPEATS: Final[Mapping[Action, frozenset[Status]]] = {
    Action.APPROVE: frozenset((Status.APPROVED, Status.REVERSAL_REQUESTED)),
    Action.REJECT: frozenset((Status.REJECTED,)),
    Action.REVERSE: frozenset((Status.REVERSED,)),
}
"""The statuses in which a decision was taken before: repeating it changes nothing."""


def next_status(
    status: Status, action: Action, asked_by: str, key_id: str, seen: Status | None = None
) -> Status:
    """The status after `action`, which is APPROVE, REJECT or REVERSE, by `key_id`; the same for a repeat.

    `asked_by` is the key that recorded it, or requested its reversal. It may reject what it recorded, but
    not approve it, nor confirm its own request. `seen` is the status in which the key saw it: a request for
    a reversal never becomes the confirmation of one that was requested meanwhile, and is a repeat where this
    key requested it. Raises `SecondApproverNeeded` and `NotDecidable`.
    """
    if status in _REPEATS[action]:
        return status
    if seen is not None and seen is not status:
        if status is Status.REVERSAL_REQUESTED and key_id and key_id == asked_by:
            return status
        raise NotDecidable(f"It is {status.value.replace('_', ' ')} by now.")
    match status, action:
        case Status.PENDING, Action.REJECT:
            return Status.REJECTED
        case Status.PENDING, Action.APPROVE:
            _require_another(asked_by, key_id, "recorded this")
            return Status.APPROVED
        case Status.APPROVED, Action.REVERSE:
            return Status.REVERSAL_REQUESTED
        case Status.REVERSAL_REQUESTED, Action.REVERSE:
            _require_another(asked_by, key_id, "requested the reversal")
            return Status.REVERSED
        case _:
            raise NotDecidable(f"It is {status.value.replace('_', ' ')}.")


def _require_another(asked_by: str, key_id: str, did: str) -> None:
    """A request without a key's id can never be a second one."""
    if not key_id or key_id == asked_by:
        raise SecondApproverNeeded(f"The key that {did} cannot decide it.")
