"""Refunds that a second key decides, as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.http.fields import DriveIdView, MoneyView, PledgeIdView, TimestampView, id_schema, with_examples
from backbone.money import as_json
from services.payments.approvals.states import Action, Status
from services.payments.domain import NO_DRIVE
from services.payments.refund_rows import RefundState, state_of

ApprovalState = Literal["needed", "approved", "rejected"]

STATUS_OF: Final[Mapping[ApprovalState, Status]] = {
    "needed": Status.PENDING,
    "approved": Status.APPROVED,
    "rejected": Status.REJECTED,
}
_STATE_OF: Final[Mapping[str, ApprovalState]] = {status: state for state, status in STATUS_OF.items()}


class ApprovalView(BaseModel):
    """The second key's decision about a refund past the installation's threshold.

    While it is `needed`, the amount is reserved and nothing is sent. `reason` says why it was decided so.
    """

    state: ApprovalState
    requested_by: Annotated[str, Field(description="The id of the API key that asked for the refund.")]
    requested_at: TimestampView
    decided_by: Annotated[str | None, Field(description="The id of the API key that decided.")]
    decided_at: TimestampView | None
    reason: str | None


_EXAMPLE: Final[dict[str, Any]] = {
    "state": "approved",
    "requested_by": "key_01frtz5n00000000000000000g",
    "requested_at": "2030-01-07T18:00:00.000Z",
    "decided_by": "key_01frtz5n00000000000000000h",
    "decided_at": "2030-01-07T19:00:00.000Z",
    "reason": "The donor was called.",
}


class LargeRefundView(BaseModel):
    """A refund that a second key decides. `reason` is the one given when it was asked for.

    A rejected refund has failed: it is never sent.
    """

    model_config = with_examples(
        {
            "id": "rfd_01frtz5n00000000000000000e",
            "status": "succeeded",
            "amount": {"currency": "USD", "value": "25000.00"},
            "payment": "pay_01frtz5n00000000000000000d",
            "pledge": "plg_01frtz5n00000000000000000c",
            "drive": "drv_01frtz5n00000000000000000a",
            "reason": "The donor typed a zero too many.",
            "approval": _EXAMPLE,
        }
    )

    id: Annotated[str, id_schema("rfd")]
    status: RefundState
    amount: MoneyView
    payment: Annotated[str, id_schema("pay")]
    pledge: PledgeIdView | None
    drive: DriveIdView | None
    reason: str | None
    approval: ApprovalView


class LargeRefundPage(BaseModel):
    """A page of refunds that a second key decides, the newest first."""

    data: list[LargeRefundView]
    next: str | None


def large_refund_json(row: Row[Any], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of `queries.LARGE` with the steps of its history, in the shape of `LargeRefundView`."""
    return {
        "id": row.id,
        "status": _status(row),
        "amount": as_json(row.units, row.currency),
        "payment": row.payment_id,
        "pledge": row.pledge_id,
        "drive": None if row.drive_id == NO_DRIVE else row.drive_id,
        "reason": row.reason,
        "approval": _approval(row, history),
    }


def _status(row: Row[Any]) -> RefundState:
    if row.state == "failed":
        return "failed"
    return "pending" if row.rank is None else state_of(row.rank)


def _approval(row: Row[Any], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    decided = next((step for step in history if step["action"] != Action.RECORD), None)
    return {
        "state": _STATE_OF[row.status],
        "requested_by": row.asked_by,
        "requested_at": rfc3339(row.made_at),
        "decided_by": decided and decided["by"],
        "decided_at": decided and decided["at"],
        "reason": decided and decided["reason"],
    }
