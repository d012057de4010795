"""The routes of disbursements (docs/api-guide.md)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator

from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import AmountTooLarge, id_schema
from backbone.http.problems import Forbidden, Invalid, NotFound, documented
from backbone.idempotency import OptionalKey, keyed_response
from services.payments.approvals.decisions import Wanted
from services.payments.approvals.proposals import DriveNotOpened, KeyedRequest
from services.payments.approvals.requests import (
    NO_NOTE,
    NO_REVERSAL_NOTE,
    PUBLIC,
    After,
    CurrencyNotAccepted,
    DecisionNote,
    DriveFilter,
    DriveRef,
    Limit,
    Rejection,
    ReversalNote,
    StatusFilter,
    checked_id,
)
from services.payments.approvals.states import Action, NotDecidable, SecondApproverNeeded
from services.payments.disbursements.commands import DisbursementExceedsBalance, Disbursements
from services.payments.disbursements.requests import (
    DisbursementPage,
    DisbursementRequest,
    DisbursementView,
    PaidOutPage,
)

SCOPE: Final = "ledger"

DisbursementRef = Annotated[
    str,
    Path(description="The disbursement's id."),
    AfterValidator(checked_id("dsb")),
    id_schema("dsb"),
]
_OWNED: Final = (Forbidden, NotYourDrive, NotFound)


def routes(disbursements: Disbursements) -> APIRouter:
    """The routes under `/v1/disbursements` and `/v1/drives/{drive}/disbursements`."""
    router = APIRouter()
    _add_records(router, disbursements)
    _add_lists(router, disbursements)
    _add_decisions(router, disbursements)
    return router


def _add_records(router: APIRouter, disbursements: Disbursements) -> None:
    @router.post(
        "/v1/drives/{drive}/disbursements",
        status_code=201,
        response_model=DisbursementView,
        responses=documented(
            *_OWNED, DriveNotOpened, DisbursementExceedsBalance, CurrencyNotAccepted, AmountTooLarge, Invalid
        ),
    )
    async def record_disbursement(
        drive: DriveRef, request: Request, caller: CallerDep, key: OptionalKey, body: DisbursementRequest
    ) -> Response:
        """Record what was paid to a beneficiary.

        It is paid out once another key approves it. A beneficiary is owed its share of what the drive raised,
        without held money, refunds, disputes and fees, less what was paid out. No more than is in a `fund` is
        ever paid from it.
        """
        caller.require(SCOPE)
        keyed = KeyedRequest(key, await request.body())
        return keyed_response(await disbursements.record(drive, body, caller, keyed))


def _add_lists(router: APIRouter, disbursements: Disbursements) -> None:
    @router.get(
        "/v1/drives/{drive}/disbursements", response_model=PaidOutPage, responses=documented(NotFound)
    )
    async def list_paid_out(
        _caller: CallerDep, response: Response, drive: DriveRef, after: After = None, limit: Limit = 25
    ) -> dict[str, Any]:
        """List what was paid to a drive's beneficiaries, newest first.

        A payment that came back has `reversed_at`.
        """
        response.headers.update(PUBLIC)
        return await disbursements.paid_out(drive, after, limit)

    @router.get("/v1/disbursements", response_model=DisbursementPage, responses=documented(*_OWNED))
    async def list_disbursements(
        caller: CallerDep,
        drive: DriveFilter = None,
        status: StatusFilter = None,
        after: After = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List disbursements with their decisions, newest first.

        Of one drive, or of all drives of the caller's partner.
        """
        caller.require(SCOPE)
        return await disbursements.proposals.page(drive, caller, Wanted(None, status, after, limit))


def _add_decisions(router: APIRouter, disbursements: Disbursements) -> None:
    decided = (*_OWNED, SecondApproverNeeded, NotDecidable)

    @router.post(
        "/v1/disbursements/{disbursement}/approve",
        response_model=DisbursementView,
        responses=documented(*decided, DisbursementExceedsBalance),
    )
    async def approve_disbursement(
        disbursement: DisbursementRef, caller: CallerDep, body: DecisionNote = NO_NOTE
    ) -> dict[str, Any]:
        """Approve a disbursement, by another key than the one that recorded it.

        What is owed is checked again.
        """
        caller.require(SCOPE)
        return await disbursements.proposals.decide(disbursement, Action.APPROVE, caller, body.reason)

    @router.post(
        "/v1/disbursements/{disbursement}/reject",
        response_model=DisbursementView,
        responses=documented(*decided),
    )
    async def reject_disbursement(
        disbursement: DisbursementRef, caller: CallerDep, body: Rejection
    ) -> dict[str, Any]:
        """Reject a disbursement that is pending.

        Any key may, also the one that recorded it.
        """
        caller.require(SCOPE)
        return await disbursements.proposals.decide(disbursement, Action.REJECT, caller, body.reason)

    @router.post(
        "/v1/disbursements/{disbursement}/reverse",
        response_model=DisbursementView,
        responses=documented(*decided),
    )
    async def reverse_disbursement(
        disbursement: DisbursementRef, caller: CallerDep, body: ReversalNote = NO_REVERSAL_NOTE
    ) -> dict[str, Any]:
        """Take an approved disbursement back, by two keys.

        The first requests the reversal; it still counts as paid. The second confirms it: what it paid is owed
        again.
        """
        caller.require(SCOPE)
        return await disbursements.proposals.decide(
            disbursement, Action.REVERSE, caller, body.reason, body.seen
        )
