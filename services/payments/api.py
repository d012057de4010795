"""The HTTP door: Stripe's webhooks (bare ASGI, the hot path), refunds, and what other services ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.http.caller import CallerDep, InternalDep
from backbone.http.fields import Body, MoneyBody, MoneyView, Text
from backbone.http.problems import BodyTooLarge, MethodNotAllowed, Problem, Unexpected, response
from backbone.idempotency import Key, RequiredKey, hash_body, keyed_response
from services.payments import queries
from services.payments.checkout.expiry import pending_expiries
from services.payments.reconciliation import lookups
from services.payments.reconciliation.backfill import Backfill
from services.payments.refunds import RefundRequest, RefundService, unsent_refunds
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.webhooks.log import State, WebhookPage, WebhookView, list_webhooks, retry_webhook
from services.payments.webhooks.receive import WebhookStore, now_s, read_body, verify

WEBHOOKS_PATH: Final = "/webhooks/stripe"
MAX_WEBHOOK_BYTES: Final = 1024 * 1024
MAX_IDS: Final = 10_000
QUIET_BACKFILLS: Final = 2


class RefundBody(Body):
    """What to give back; all that is left without an amount."""

    amount: MoneyBody | None = None
    reason: Annotated[Text, Field(max_length=500)] | None = None


_ALL_THAT_IS_LEFT: Final = RefundBody()


class RefundView(BaseModel):
    """A refund as the door answers it."""

    id: str
    status: Literal["pending", "succeeded", "failed"]
    amount: MoneyView


class Ids(Body):
    """Which pledges are asked about."""

    ids: Annotated[list[Text], Field(max_length=MAX_IDS)]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the routes work with."""

    database: Database
    store: WebhookStore
    refunds: RefundService
    backfill: Backfill
    pace: RateLimiter
    publishable_key: str
    secrets: list[str]
    clock: Clock


def add_routes(app: FastAPI, dependencies: Dependencies) -> None:
    """Give `app` the routes of payments, all but the webhooks'."""

    @app.post("/v1/pledges/{pledge}/refunds", status_code=201, response_model=RefundView)
    async def make_refund(
        pledge: str,
        request: Request,
        caller: CallerDep,
        key: RequiredKey,
        body: RefundBody = _ALL_THAT_IS_LEFT,
    ) -> Response:
        """Give back what was paid on a pledge, or part of it; without a body, all that is left.

        For the partner that made the pledge, the partner that owns its drive, and admins.
        """
        caller.require("refunds")
        refund_request = RefundRequest(
            pledge_id=pledge,
            partner=None if caller.admin else caller.partner,
            amount=body.amount.money() if body.amount else None,
            reason=body.reason,
            key=Key(f"{caller.partner}:refunds", key),
            body_hash=hash_body(pledge.encode() + b"\n" + await request.body()),
            test_key=caller.mode == "test",
        )
        status, reply, replayed = await dependencies.refunds.make(refund_request)
        return keyed_response(status, reply, replayed=replayed)

    @app.get("/v1/webhooks", response_model=WebhookPage, tags=["webhooks"])
    async def list_stripe_webhooks(
        caller: CallerDep,
        state: State | None = None,
        after: Annotated[str | None, Query(pattern="^[0-9]{1,18}$", description="`next`.")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 25,
    ) -> dict[str, Any]:
        """Stripe's events as they were stored, the newest first, and what became of each."""
        caller.require("admin")
        return await list_webhooks(dependencies.database, state, None if after is None else int(after), limit)

    @app.post("/v1/webhooks/{id}/retry", response_model=WebhookView, tags=["webhooks"])
    async def retry_stripe_webhook(
        event_id: Annotated[str, Path(alias="id", description="Stripe's id of the event.")],
        caller: CallerDep,
    ) -> dict[str, Any]:
        """Try an event that is set aside or ignored again now; `state` tells within seconds how it went."""
        caller.require("admin")
        found = await retry_webhook(dependencies.database, event_id, dependencies.clock)
        dependencies.store.news.set()
        return found

    @app.post("/internal/checkouts", include_in_schema=False)
    async def read_checkouts(asked: Ids, _: InternalDep) -> dict[str, Any]:
        async with dependencies.database.reading() as session:
            found = await queries.read_checkouts(
                session,
                asked.ids,
                dependencies.pace.rate_per_s,
                dependencies.publishable_key,
                dependencies.clock.now(),
            )
        return {"data": found}

    @app.get("/internal/books", include_in_schema=False)
    async def read_books(_: InternalDep) -> dict[str, str]:
        async with dependencies.database.reading() as session:
            return await queries.read_books(session)


def add_drained(
    app: FastAPI,
    dependencies: Dependencies,
    outbox_empty: Callable[[], Awaitable[bool]],
    behind: Callable[[], Awaitable[int]],
) -> None:
    """`GET /internal/quiet`: what is still to be done, everything 0 when nothing is."""

    @app.get("/internal/quiet", include_in_schema=False)
    async def read_drained(_: InternalDep) -> dict[str, int]:
        heard = await behind()  # in the order of the flow: what moves on meanwhile is counted further down
        async with dependencies.database.reading() as session:
            waiting = {
                "webhooks": await queries.unapplied_webhooks(session),
                "tickets": await queries.waiting_tickets(session),
                "attempts": await queries.open_attempts(session),
                "refunds": await unsent_refunds(session),
                "set_aside": await queries.quarantined_webhooks(session),
                "unplaced_facts": await queries.unplaced_facts(session),
                "questions": await lookups.pending_refund_lookups(session),
                "closings": await pending_expiries(session, dependencies.clock),
            }
        return {
            "outbox": 0 if await outbox_empty() else 1,
            "behind": heard,
            "backfills": max(0, QUIET_BACKFILLS - await dependencies.backfill.runs_without_news()),
        } | waiting


def with_webhooks(app: ASGIApp, dependencies: Dependencies) -> ASGIApp:
    """`app` with the webhook route before it, in bare ASGI: two webhooks come with every donation."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != WEBHOOKS_PATH:
            await app(scope, receive, send)
            return
        try:
            await _take_webhook(scope, receive, dependencies)
        except Problem as problem:
            await response(problem, Request(scope))(scope, receive, send)
        except Exception:
            await response(Unexpected(), Request(scope))(scope, receive, send)
            raise
        else:
            await send({"type": "http.response.start", "status": 200, "headers": _STORED})
            await send({"type": "http.response.body", "body": b'{"received":true}'})

    return answer


_STORED: Final = [(b"content-type", b"application/json"), (b"content-length", b"17")]


async def _take_webhook(scope: Scope, receive: Receive, dependencies: Dependencies) -> None:
    """Verify a webhook and store it; returns once it is durable."""
    if scope["method"] != "POST":
        raise MethodNotAllowed(headers={"Allow": "POST"})
    body = await _body(receive)
    verify(body, _header(scope, b"stripe-signature"), dependencies.secrets, now_s())
    await dependencies.store.keep(read_body(body))
    crash_point("payments.webhooks.after_commit")


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("The request ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_WEBHOOK_BYTES:
            raise BodyTooLarge("A webhook has at most 1 MiB.")
        if not message.get("more_body"):
            return b"".join(parts)
