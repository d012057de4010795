"""The routes of contributions in hours and goods (docs/api-guide.md)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator

from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import id_schema
from backbone.http.problems import Forbidden, Invalid, NotFound, documented
from backbone.idempotency import OptionalKey, keyed_response
from services.payments.approvals.decisions import Wanted
from services.payments.approvals.proposals import DriveNotOpened, KeyedRequest
from services.payments.approvals.requests import (
    NO_NOTE,
    PUBLIC,
    After,
    DecisionNote,
    DriveFilter,
    DriveRef,
    Limit,
    Rejection,
    StatusFilter,
    checked_id,
)
from services.payments.approvals.states import Action, NotDecidable, SecondApproverNeeded
from services.payments.offline.api import SCOPE
from services.payments.offline.contributions import (
    ContributionPage,
    ContributionRequest,
    Contributions,
    ContributionSums,
    ContributionView,
)

ContributionRef = Annotated[
    str,
    Path(description="The contribution's id."),
    AfterValidator(checked_id("ctb")),
    id_schema("ctb"),
]
_OWNED = (Forbidden, NotYourDrive, NotFound)


def routes(contributions: Contributions) -> APIRouter:
    """The routes under `/v1/contributions` and `/v1/drives/{drive}/contributions`."""
    router = APIRouter()
    _add_records(router, contributions)
    _add_decisions(router, contributions)
    return router


def _add_records(router: APIRouter, contributions: Contributions) -> None:
    path = "/v1/drives/{drive}/contributions"

    @router.post(
        path,
        status_code=201,
        response_model=ContributionView,
        responses=documented(*_OWNED, DriveNotOpened, Invalid),
    )
    async def record_contribution(
        drive: DriveRef, request: Request, caller: CallerDep, key: OptionalKey, body: ContributionRequest
    ) -> Response:
        """Record hours or goods.

        They are in the drive's sums once another key approves them, and never part of its money.
        """
        caller.require(SCOPE)
        keyed = KeyedRequest(key, await request.body())
        return keyed_response(await contributions.record(drive, body, caller, keyed))

    @router.get(path, response_model=ContributionSums, responses=documented(NotFound))
    async def sum_contributions(_caller: CallerDep, response: Response, drive: DriveRef) -> dict[str, Any]:
        """Sum a drive's approved hours and goods, by kind and unit."""
        response.headers.update(PUBLIC)
        return await contributions.sums(drive)

    @router.get("/v1/contributions", response_model=ContributionPage, responses=documented(*_OWNED))
    async def list_contributions(
        caller: CallerDep,
        drive: DriveFilter = None,
        status: StatusFilter = None,
        after: After = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List contributions, newest first.

        Of one drive, or of all drives of the caller's partner.
        """
        caller.require(SCOPE)
        return await contributions.proposals.page(drive, caller, Wanted(None, status, after, limit))


def _add_decisions(router: APIRouter, contributions: Contributions) -> None:
    decided = documented(*_OWNED, SecondApproverNeeded, NotDecidable)

    @router.post(
        "/v1/contributions/{contribution}/approve", response_model=ContributionView, responses={**decided}
    )
    async def approve_contribution(
        contribution: ContributionRef, caller: CallerDep, body: DecisionNote = NO_NOTE
    ) -> dict[str, Any]:
        """Approve a contribution, by another key than the one that recorded it."""
        caller.require(SCOPE)
        return await contributions.proposals.decide(contribution, Action.APPROVE, caller, body.reason)

    @router.post(
        "/v1/contributions/{contribution}/reject", response_model=ContributionView, responses={**decided}
    )
    async def reject_contribution(
        contribution: ContributionRef, caller: CallerDep, body: Rejection
    ) -> dict[str, Any]:
        """Reject a contribution that is pending.

        Any key may, also the one that recorded it.
        """
        caller.require(SCOPE)
        return await contributions.proposals.decide(contribution, Action.REJECT, caller, body.reason)
