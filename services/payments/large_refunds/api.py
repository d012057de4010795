"""The routes of refunds that a second key decides (docs/api-guide.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import id_schema
from backbone.http.problems import Forbidden, NotFound, documented
from services.payments.approvals.requests import (
    NO_NOTE,
    DecisionNote,
    DriveFilter,
    Limit,
    Rejection,
    checked_id,
)
from services.payments.approvals.states import Action, NotDecidable, SecondApproverNeeded
from services.payments.large_refunds.commands import LargeRefunds
from services.payments.large_refunds.views import ApprovalState, LargeRefundPage, LargeRefundView
from services.payments.refunds import RefundExceedsPayment

SCOPE: Final = "refunds"

RefundRef = Annotated[
    str, Path(description="The refund's id."), AfterValidator(checked_id("rfd")), id_schema("rfd")
]
StateFilter = Annotated[
    ApprovalState | SkipJsonSchema[None], Query(description="Those whose approval is in this state.")
]
AfterRefund = Annotated[
    Annotated[str, StringConstraints(pattern=f"^rfd_{ids.ULID_PATTERN}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]

_ALLOWED: Final = (Forbidden, NotYourDrive, NotFound)
_DECIDED: Final = (*_ALLOWED, SecondApproverNeeded, NotDecidable)
_REJECTED: Final[Mapping[int | str, dict[str, Any]]] = documented(*_DECIDED)
_APPROVED: Final[Mapping[int | str, dict[str, Any]]] = documented(*_DECIDED, RefundExceedsPayment)


def routes(refunds: LargeRefunds) -> APIRouter:
    """The routes under `/v1/refunds`."""
    router = APIRouter()

    @router.get("/v1/refunds", response_model=LargeRefundPage, responses=documented(Forbidden, NotFound))
    async def list_large_refunds(
        caller: CallerDep,
        drive: DriveFilter = None,
        approval: StateFilter = None,
        after: AfterRefund = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List the refunds that a second key decides, newest first.

        Of the drives that the caller's partner owns and of the pledges that it made; of all for an admin.
        """
        caller.require(SCOPE)
        return await refunds.page(drive, approval, caller, after, limit)

    @router.post("/v1/refunds/{refund}/approve", response_model=LargeRefundView, responses={**_APPROVED})
    async def approve_refund(
        refund: RefundRef, caller: CallerDep, body: DecisionNote = NO_NOTE
    ) -> dict[str, Any]:
        """Approve a refund past the threshold, by another key.

        Another than the one that asked for it. It is sent at once. Where less is left of the payment by now,
        nothing is sent, and it goes on to wait.
        """
        caller.require(SCOPE)
        return await refunds.decide(refund, Action.APPROVE, caller, body.reason)

    @router.post("/v1/refunds/{refund}/reject", response_model=LargeRefundView, responses={**_REJECTED})
    async def reject_refund(refund: RefundRef, caller: CallerDep, body: Rejection) -> dict[str, Any]:
        """Reject a refund that waits for a second key.

        Any key may, also the one that asked for it. Its amount can be refunded again.
        """
        caller.require(SCOPE)
        return await refunds.decide(refund, Action.REJECT, caller, body.reason)

    return router
