"""The routes that decide about a payment: releasing it while it is held, and refunding it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field

from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import REFERENCE, Body, Text, text_schema, with_examples
from backbone.http.problems import Forbidden, Invalid, NotFound, Unauthorized, documented
from backbone.idempotency import (
    KeyReused,
    OptionalKey,
    RequiredKey,
    ScopedKey,
    hash_body,
    keyed_response,
)
from services.payments.api import ALL_THAT_IS_LEFT, RefundBody, RefundView
from services.payments.holding.decisions import DecidedBy
from services.payments.holding.release import DriveDoesNotMatch, PaymentNotHeld, ReleaseRequest, Releases
from services.payments.refunds import (
    CurrencyDiffers,
    NotPaid,
    RefundExceedsPayment,
    RefundRequest,
    RefundService,
)
from services.payments.treasury.parameters import PaymentRef, matches_reference
from services.payments.treasury.payment_views import PaymentView


def _reference(text: str) -> str:
    if not matches_reference(text):
        raise ValueError("must be an id or slug")
    return text


Reference = Annotated[str, AfterValidator(_reference), text_schema(REFERENCE)]


class ReleaseBody(Body):
    """Why the payment counts; in which drive, if in another one; and which creator it is credited to."""

    model_config = Body.model_config | with_examples(
        {"drive": "winter", "creator": "aboflah", "note": "The donor chose the wrong page."}
    )

    note: Annotated[Text, Field(min_length=1, max_length=500)]
    drive: Reference | None = None
    creator: Reference | None = None


def routes(releases: Releases, refunds: RefundService) -> APIRouter:
    """The routes that decide about a payment."""
    router = APIRouter()

    @router.post(
        "/v1/payments/{payment}/release",
        response_model=PaymentView,
        responses=documented(
            Unauthorized, Forbidden, NotYourDrive, NotFound, PaymentNotHeld, DriveDoesNotMatch, KeyReused,
            Invalid,
        ),
    )  # fmt: skip
    async def release_payment(
        payment: PaymentRef, request: Request, caller: CallerDep, key: OptionalKey, body: ReleaseBody
    ) -> Response:
        """Count a held payment.

        In its own drive, or in another one of the same owner. Without `creator` it keeps its creator, but
        none in another drive; null credits nobody. The donor's name and message are not shown in another
        drive than the pledge's. The decision stands, whatever is reported about payment or pledge later.
        """
        caller.require("ledger")
        release = ReleaseRequest(
            payment_id=payment,
            drive=body.drive,
            creator=body.creator,
            names_creator="creator" in body.model_fields_set,
            note=body.note,
            caller=caller,
            key=None if key is None else ScopedKey(f"{caller.partner}:releases", key),
            body_hash=hash_body(payment.encode() + b"\n" + await request.body()),
        )
        return keyed_response(await releases.release(release))

    @router.post(
        "/v1/payments/{payment}/refunds",
        status_code=201,
        response_model=RefundView,
        responses=documented(NotFound, RefundExceedsPayment, NotPaid, CurrencyDiffers),
    )
    async def refund_payment(
        payment: PaymentRef,
        request: Request,
        caller: CallerDep,
        key: RequiredKey,
        body: RefundBody = ALL_THAT_IS_LEFT,
    ) -> Response:
        """Refund a payment, held or not, or part of it.

        Without a body, or without an amount: all that is left. Past the installation's threshold the refund
        waits for a second key.

        For the partner that owns its drive, the partner that made its pledge, and admins.
        """
        caller.require("refunds")
        refund_request = RefundRequest(
            pledge_id=None,
            payment_id=payment,
            partner=None if caller.admin else caller.partner,
            amount=body.amount.money() if body.amount else None,
            reason=body.reason,
            key=ScopedKey(f"{caller.partner}:payment-refunds", key),
            body_hash=hash_body(payment.encode() + b"\n" + await request.body()),
            test_key=caller.mode == "test",
            by=DecidedBy.caller(caller),
        )
        return keyed_response(await refunds.make(refund_request))

    return router
