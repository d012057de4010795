"""The HTTP API: refunds, stored webhooks, and the internal routes of other services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.caller import CallerDep, InternalDep
from backbone.http.fields import Body, MoneyView, PledgeIdView, RefundedMoney, Text, id_schema, with_examples
from backbone.http.problems import NotFound, documented
from backbone.idempotency import RequiredKey, ScopedKey, hash_body, keyed_response
from services.payments import queries
from services.payments.checkout.expiry import pending_expiries
from services.payments.holding.decisions import DecidedBy
from services.payments.large_refunds.views import ApprovalView
from services.payments.reconciliation import lookups
from services.payments.reconciliation.backfill import Backfill
from services.payments.refund_rows import unsent_refunds
from services.payments.refunds import (
    CurrencyDiffers,
    NotPaid,
    RefundExceedsPayment,
    RefundRequest,
    RefundService,
)
from services.payments.settlement.api import add_payout_routes
from services.payments.webhooks.log import (
    State,
    TextIsGone,
    WebhookPage,
    WebhookView,
    list_webhooks,
    retry_webhook,
)
from services.payments.webhooks.receive import WebhookStore

MAX_IDS: Final = 10_000

QUIET_BACKFILLS: Final = 2
"""Backfills in a row without a new event before nothing is in flight any more."""


class RefundBody(Body):
    """The amount to refund; without one, all that is left."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"amount": {"currency": "USD", "value": "5.00"}, "reason": "asked for"}]
        }
    )

    amount: RefundedMoney | None = None
    reason: Annotated[Text, Field(max_length=500)] | None = None


ALL_THAT_IS_LEFT: Final = RefundBody()


class RefundView(BaseModel):
    """A refund. It is `pending` until the processor has answered.

    `approval` is there where the refund needs a second key (`/v1/refunds/{refund}/approve`): it is sent once
    that key has approved it.
    """

    model_config = with_examples(
        {
            "id": "rfd_01frtz5n00000000000000000e",
            "status": "succeeded",
            "amount": {"currency": "USD", "value": "5.00"},
        }
    )

    id: Annotated[str, id_schema("rfd")]
    status: Literal["pending", "succeeded", "failed"]
    amount: MoneyView
    approval: ApprovalView | None = None


class Ids(Body):
    """The pledges to read."""

    ids: Annotated[list[Text], Field(max_length=MAX_IDS)]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the routes need."""

    database: Database
    store: WebhookStore
    refunds: RefundService
    backfill: Backfill
    publishable_key: str
    clock: Clock
    outbox_empty: Callable[[], Awaitable[bool]]
    behind: Callable[[], Awaitable[int]]


def routes(dependencies: Dependencies) -> APIRouter:
    """Every route of payments but the webhook endpoint (`webhooks/endpoint.py`)."""
    router = APIRouter()
    _add_public(router, dependencies)
    add_payout_routes(router, dependencies.database)
    _add_internal(router, dependencies)
    return router


def _add_public(router: APIRouter, dependencies: Dependencies) -> None:
    @router.post(
        "/v1/pledges/{pledge}/refunds",
        status_code=201,
        response_model=RefundView,
        responses=documented(NotFound, RefundExceedsPayment, NotPaid, CurrencyDiffers),
    )
    async def make_refund(
        pledge: PledgeIdView,
        request: Request,
        caller: CallerDep,
        key: RequiredKey,
        body: RefundBody = ALL_THAT_IS_LEFT,
    ) -> Response:
        """Refund what was paid on a pledge, or part of it.

        Without a body, or without an amount: all that is left. Past the installation's threshold the refund
        waits for a second key.

        For the partner that made the pledge, the partner that owns its drive, and admins.
        """
        caller.require("refunds")
        refund_request = RefundRequest(
            pledge_id=pledge,
            partner=None if caller.admin else caller.partner,
            amount=body.amount.money() if body.amount else None,
            reason=body.reason,
            key=ScopedKey(f"{caller.partner}:refunds", key),
            body_hash=hash_body(pledge.encode() + b"\n" + await request.body()),
            test_key=caller.mode == "test",
            by=DecidedBy.caller(caller),
        )
        return keyed_response(await dependencies.refunds.make(refund_request))

    @router.get("/v1/webhooks", response_model=WebhookPage)
    async def list_stripe_webhooks(
        caller: CallerDep,
        state: Annotated[State | SkipJsonSchema[None], Query(description="Those in this state.")] = None,
        after: Annotated[
            Annotated[str, StringConstraints(pattern="^[0-9]{1,18}$")] | SkipJsonSchema[None],
            Query(description="`next` of the page before."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 25,
    ) -> dict[str, Any]:
        """List Stripe's events, newest first.

        Each as it was stored, and what became of it.
        """
        caller.require("admin")
        return await list_webhooks(dependencies.database, state, None if after is None else int(after), limit)

    @router.post(
        "/v1/webhooks/{id}/retry", response_model=WebhookView, responses=documented(NotFound, TextIsGone)
    )
    async def retry_stripe_webhook(
        event_id: Annotated[str, Path(alias="id", description="Stripe's id of the event.")],
        caller: CallerDep,
    ) -> dict[str, Any]:
        """Retry a quarantined or ignored event.

        `state` shows the outcome within seconds. The text of an event that was ignored is deleted in time:
        it can no longer be tried.
        """
        caller.require("admin")
        found = await retry_webhook(dependencies.database, event_id, dependencies.clock)
        dependencies.store.news.set()
        return found


def _add_internal(router: APIRouter, dependencies: Dependencies) -> None:
    @router.post("/internal/checkouts", include_in_schema=False)
    async def read_checkouts(pledges: Ids, _caller: InternalDep) -> dict[str, Any]:
        """Status, checkout and queue position of these pledges; unknown ones are left out."""
        async with dependencies.database.reading() as session:
            found = await queries.read_checkouts(
                session,
                pledges.ids,
                dependencies.publishable_key,
                dependencies.clock.now(),
            )
        return {"data": found}

    @router.get("/internal/books", include_in_schema=False)
    async def read_books(_caller: InternalDep) -> dict[str, str]:
        """The ledger's balance of processor money by currency; sums the whole ledger."""
        return await dependencies.database.read_whole(queries.read_books)

    @router.get("/internal/quiet", include_in_schema=False)
    async def read_drained(_caller: InternalDep) -> dict[str, int]:
        """The work not yet done; everything 0 when drained."""
        behind = await dependencies.behind()  # in the order of the flow: later counts include what moves on
        async with dependencies.database.reading() as session:
            waiting = {
                "webhooks": await queries.unapplied_webhooks(session),
                "tickets": await queries.waiting_tickets(session),
                "attempts": await queries.open_attempts(session),
                "refunds": await unsent_refunds(session),
                "set_aside": await queries.quarantined_webhooks(session),
                "unplaced_facts": await queries.unplaced_facts(session),
                "questions": await lookups.pending_lookups(session),
                "closings": await pending_expiries(session, dependencies.clock),
            }
        return {
            "outbox": 0 if await dependencies.outbox_empty() else 1,
            "behind": behind,
            "backfills": max(0, QUIET_BACKFILLS - await dependencies.backfill.runs_without_news()),
        } | waiting
