"""Stripe's API under `/v1`: authentication, rate limit, idempotency and the faults in force."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from typing import Any, Final

from sandbox import (
    balance,
    checkout,
    disputes,
    event_lists,
    forms,
    payment_intents,
    payment_links,
    payouts,
    refunds,
    webhook_endpoints,
)
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.errors import ApiError, rate_limited, server_error, unauthorized, unknown_url
from sandbox.expansion import expand
from sandbox.faults import FaultControl, happens
from sandbox.http_server import Reply, Request
from sandbox.idempotency import IdempotencyStore, StoredAnswer, fingerprint
from sandbox.records import Json
from sandbox.stripe_objects import API_VERSION, to_json

Operation = Callable[[Account, ApiCall], Json]

# `*` stands for an object's id.
OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/v1/checkout/sessions"): checkout.create_session,
    ("GET", "/v1/checkout/sessions"): checkout.list_sessions,
    ("GET", "/v1/checkout/sessions/*"): checkout.retrieve_session,
    ("GET", "/v1/checkout/sessions/*/line_items"): checkout.list_line_items,
    ("POST", "/v1/checkout/sessions/*/expire"): checkout.expire_session,
    ("POST", "/v1/payment_links"): payment_links.create_link,
    ("GET", "/v1/payment_links"): payment_links.list_links,
    ("GET", "/v1/payment_links/*"): payment_links.retrieve_link,
    ("POST", "/v1/payment_links/*"): payment_links.update_link,
    ("GET", "/v1/payment_intents"): payment_intents.list_payment_intents,
    ("GET", "/v1/payment_intents/*"): payment_intents.retrieve_payment_intent,
    ("GET", "/v1/charges/*"): refunds.retrieve_charge,
    ("POST", "/v1/refunds"): refunds.create_refund,
    ("GET", "/v1/refunds"): refunds.list_refunds,
    ("GET", "/v1/refunds/*"): refunds.retrieve_refund,
    ("GET", "/v1/disputes"): disputes.list_disputes,
    ("GET", "/v1/disputes/*"): disputes.retrieve_dispute,
    ("GET", "/v1/balance_transactions"): balance.list_balance_transactions,
    ("GET", "/v1/balance_transactions/*"): balance.retrieve_balance_transaction,
    ("GET", "/v1/payouts"): payouts.list_payouts,
    ("GET", "/v1/payouts/*"): payouts.retrieve_payout,
    ("GET", "/v1/events"): event_lists.list_events,
    ("GET", "/v1/events/*"): event_lists.retrieve_event,
    ("GET", "/v1/webhook_endpoints"): webhook_endpoints.list_webhook_endpoints,
}


def find_operation(method: str, path: str) -> tuple[Operation, str]:
    """The operation of a route and the id in its path. Raises ApiError (404) for an unknown route."""
    operation = OPERATIONS.get((method, path))
    if operation is not None:
        return operation, ""
    parts = path.split("/")
    for place in (-1, -2):
        pattern = "/".join([*parts[:place], "*", *(parts[place + 1 :] if place < -1 else [])])
        operation = OPERATIONS.get((method, pattern))
        if operation is not None:
            return operation, parts[place]
    raise unknown_url(method, path)


def key_of(authorization: str) -> str:
    """The API key of an Authorization header, Bearer or Basic; empty when there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode("latin-1").partition(":")[0]
        except binascii.Error:
            return ""
    return ""


class StripeApi:
    """Answers `/v1` for one account and one API key."""

    def __init__(self, account: Account, api_key: str, faults: FaultControl) -> None:
        self._account = account
        self._api_key = api_key
        self._accepted = f"Bearer {api_key}"
        self._faults = faults
        self.answers = IdempotencyStore(account)

    async def answer(self, request: Request) -> Reply:
        """Answer one request; its changes are durable before the reply is returned."""
        path, _, query = request.target.partition("?")
        headers = request.headers
        request_id = "req_" + os.urandom(7).hex()
        common = {"Request-Id": request_id, "Stripe-Version": headers.get("stripe-version", API_VERSION)}
        try:
            self._authorize(headers.get("authorization", ""))
            operation, target = find_operation(request.method, path)
            if request.method == "POST":
                form = request.body.decode("utf-8", "replace")
                call = ApiCall(forms.decode(form), target, request_id, headers.get("idempotency-key"))
                return await self._post(operation, call, path, form, common)
            body = self._run(operation, ApiCall(forms.decode(query), target, request_id))
            await self._account.journal.durable()
            return Reply(200, body, common)
        except ApiError as api_error:
            await self._account.journal.durable()
            return Reply(
                api_error.status, to_json(api_error.body()).encode(), common | _extra_headers(api_error)
            )

    def _authorize(self, authorization: str) -> None:
        if authorization != self._accepted:
            key = key_of(authorization)
            if not key:
                raise unauthorized("You did not provide an API key.")
            if key != self._api_key:
                raise unauthorized(f"Invalid API Key provided: {key[:8]}{'*' * 8}{key[-4:]}")
        if not self._faults.within_rate_limit():
            raise rate_limited()

    def _run(self, operation: Operation, call: ApiCall) -> bytes:
        obj = operation(self._account, call)
        if "expand" in call.params:
            obj = expand(self._account, call, obj)
        return to_json(obj).encode()

    async def _post(
        self, operation: Operation, call: ApiCall, path: str, form: str, common: dict[str, str]
    ) -> Reply:
        """Answer a POST: replay its key's stored response, or execute it and store the response."""
        faults, key = self._faults.faults, call.idempotency_key
        if happens(faults.error_rate):
            raise server_error()
        request_fingerprint = b""
        if key is not None:
            common["Idempotency-Key"] = key
            request_fingerprint = fingerprint(path, form)
            stored = self.answers.stored(key, request_fingerprint)
            if stored is not None:
                return Reply(stored.status, stored.body, common | {"Idempotent-Replayed": "true"})
        reply = self._execute(operation, call)
        if happens(faults.error_after_rate):
            reply = StoredAnswer(500, to_json(server_error().body()).encode())
        await self._store(key, request_fingerprint, reply)
        retry = {"Stripe-Should-Retry": "false"} if reply.status >= 500 else {}
        return Reply(
            reply.status, reply.body, common | retry, held=happens(faults.timeout_after_success_rate)
        )

    def _execute(self, operation: Operation, call: ApiCall) -> StoredAnswer:
        try:
            return StoredAnswer(200, self._run(operation, call))
        except ApiError as api_error:
            if not api_error.executed:
                raise
            return StoredAnswer(api_error.status, to_json(api_error.body()).encode())

    async def _store(self, key: str | None, request_fingerprint: bytes, reply: StoredAnswer) -> None:
        if key is None:
            await self._account.journal.durable()
            return
        self.answers.begin(key)
        try:
            self.answers.store(key, request_fingerprint, reply)
            await self._account.journal.durable()
        finally:
            self.answers.end(key)


def _extra_headers(api_error: ApiError) -> dict[str, Any]:
    """The headers that Stripe adds to some errors."""
    if api_error.status == 429:
        return {"Stripe-Rate-Limited-Reason": "endpoint-rate"}
    return {}
