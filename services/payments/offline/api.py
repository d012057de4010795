"""The routes of offline gifts (docs/api-guide.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator

from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import AmountTooLarge, id_schema
from backbone.http.problems import Forbidden, Invalid, NotFound, documented
from backbone.idempotency import RequiredKey, keyed_response
from services.payments.approvals.decisions import Wanted
from services.payments.approvals.proposals import DriveNotOpened, KeyedRequest
from services.payments.approvals.requests import (
    NO_NOTE,
    NO_REVERSAL_NOTE,
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
from services.payments.offline.gifts import OfflineGifts
from services.payments.offline.requests import OfflineGiftPage, OfflineGiftRequest, OfflineGiftView

SCOPE: Final = "offline"

GiftRef = Annotated[
    str,
    Path(description="The offline gift's id."),
    AfterValidator(checked_id("ofg")),
    id_schema("ofg"),
]

_OWNED: Final = (Forbidden, NotYourDrive, NotFound)
_DECIDED: Final[Mapping[int | str, dict[str, Any]]] = documented(*_OWNED, SecondApproverNeeded, NotDecidable)


def routes(gifts: OfflineGifts) -> APIRouter:
    """The routes under `/v1/offline-gifts`, and the one that records a gift."""
    router = APIRouter()
    _add_records(router, gifts)
    _add_decisions(router, gifts)
    return router


def _add_records(router: APIRouter, gifts: OfflineGifts) -> None:
    @router.post(
        "/v1/drives/{drive}/offline-gifts",
        status_code=201,
        response_model=OfflineGiftView,
        responses=documented(*_OWNED, DriveNotOpened, CurrencyNotAccepted, AmountTooLarge, Invalid),
    )
    async def record_offline_gift(
        drive: DriveRef, request: Request, caller: CallerDep, key: RequiredKey, body: OfflineGiftRequest
    ) -> Response:
        """Record a gift that came past the processor.

        It counts once another key approves it. A closed drive takes what was received late, a draft nothing.
        """
        caller.require(SCOPE)
        keyed = KeyedRequest(key, await request.body())
        return keyed_response(await gifts.record(drive, body, caller, keyed))

    @router.get("/v1/offline-gifts", response_model=OfflineGiftPage, responses=documented(*_OWNED))
    async def list_offline_gifts(
        caller: CallerDep,
        drive: DriveFilter = None,
        status: StatusFilter = None,
        after: After = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List offline gifts, newest first.

        Of one drive, or of all drives of the caller's partner.
        """
        caller.require(SCOPE)
        return await gifts.proposals.page(drive, caller, Wanted(None, status, after, limit))


def _add_decisions(router: APIRouter, gifts: OfflineGifts) -> None:
    @router.post("/v1/offline-gifts/{gift}/approve", response_model=OfflineGiftView, responses={**_DECIDED})
    async def approve_offline_gift(
        gift: GiftRef, caller: CallerDep, body: DecisionNote = NO_NOTE
    ) -> dict[str, Any]:
        """Approve an offline gift, by another key than the one that recorded it.

        From then on it counts as a donation.
        """
        caller.require(SCOPE)
        return await gifts.proposals.decide(gift, Action.APPROVE, caller, body.reason)

    @router.post("/v1/offline-gifts/{gift}/reject", response_model=OfflineGiftView, responses={**_DECIDED})
    async def reject_offline_gift(gift: GiftRef, caller: CallerDep, body: Rejection) -> dict[str, Any]:
        """Reject an offline gift that is pending.

        Any key may, also the one that recorded it.
        """
        caller.require(SCOPE)
        return await gifts.proposals.decide(gift, Action.REJECT, caller, body.reason)

    @router.post("/v1/offline-gifts/{gift}/reverse", response_model=OfflineGiftView, responses={**_DECIDED})
    async def reverse_offline_gift(
        gift: GiftRef, caller: CallerDep, body: ReversalNote = NO_REVERSAL_NOTE
    ) -> dict[str, Any]:
        """Take an approved gift out again, by two keys.

        The first requests the reversal; it still counts. The second confirms it: nothing of the gift is left.
        """
        caller.require(SCOPE)
        return await gifts.proposals.decide(gift, Action.REVERSE, caller, body.reason, body.seen)
