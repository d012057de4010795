"""Stripe's door: `/v1`, with its keys, limits, idempotency and the faults a rehearsal asked for."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from typing import Any, Final

from sandbox import checkout, disputes, event_lists, forms, paying, refunds, webhook_endpoints
from sandbox.account import Account
from sandbox.call import Call
from sandbox.expansion import expand
from sandbox.faults import FaultDesk, hits
from sandbox.http_server import Reply, Request
from sandbox.idempotency import Answer, Answers, fingerprint
from sandbox.records import Json
from sandbox.refusals import Refusal, broken, too_fast, unauthorized, unknown_url
from sandbox.shapes import API_VERSION, to_json

Operation = Callable[[Account, Call], Json]

# The address's ids are written `*`.
OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/v1/checkout/sessions"): checkout.create_session,
    ("GET", "/v1/checkout/sessions"): checkout.list_sessions,
    ("GET", "/v1/checkout/sessions/*"): checkout.retrieve_session,
    ("GET", "/v1/checkout/sessions/*/line_items"): checkout.list_line_items,
    ("POST", "/v1/checkout/sessions/*/expire"): checkout.expire_session,
    ("GET", "/v1/payment_intents"): paying.list_payment_intents,
    ("GET", "/v1/payment_intents/*"): paying.retrieve_payment_intent,
    ("GET", "/v1/charges/*"): refunds.retrieve_charge,
    ("POST", "/v1/refunds"): refunds.create_refund,
    ("GET", "/v1/refunds"): refunds.list_refunds,
    ("GET", "/v1/refunds/*"): refunds.retrieve_refund,
    ("GET", "/v1/disputes"): disputes.list_disputes,
    ("GET", "/v1/disputes/*"): disputes.retrieve_dispute,
    ("GET", "/v1/events"): event_lists.list_events,
    ("GET", "/v1/events/*"): event_lists.retrieve_event,
    ("GET", "/v1/webhook_endpoints"): webhook_endpoints.list_webhook_endpoints,
}


def find_operation(method: str, path: str) -> tuple[Operation, str]:
    """The operation of an address and the id in it. Raises Refusal (404) for others."""
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
    """The API key of a Bearer or Basic header; empty when there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode("latin-1").partition(":")[0]
        except binascii.Error:
            return ""
    return ""


class StripeDoor:
    """Answers `/v1` for one account and one API key."""

    def __init__(self, account: Account, api_key: str, faults: FaultDesk) -> None:
        self._account = account
        self._api_key = api_key
        self._accepted = f"Bearer {api_key}"
        self._faults = faults
        self.answers = Answers(account)

    async def answer(self, request: Request) -> Reply:
        """One request to one reply, durable before it is given."""
        path, _, query = request.target.partition("?")
        headers = request.headers
        request_id = "req_" + os.urandom(7).hex()
        common = {"Request-Id": request_id, "Stripe-Version": headers.get("stripe-version", API_VERSION)}
        try:
            self._admit(headers.get("authorization", ""))
            operation, target = find_operation(request.method, path)
            if request.method == "POST":
                form = request.body.decode("utf-8", "replace")
                call = Call(forms.decode(form), target, request_id, headers.get("idempotency-key"))
                return await self._act(operation, call, path, form, common)
            body = self._run(operation, Call(forms.decode(query), target, request_id))
            await self._account.journal.durable()
            return Reply(200, body, common)
        except Refusal as refusal:
            await self._account.journal.durable()
            return Reply(refusal.status, to_json(refusal.body()).encode(), common | _advice(refusal))

    def _admit(self, authorization: str) -> None:
        if authorization != self._accepted:
            key = key_of(authorization)
            if not key:
                raise unauthorized("You did not provide an API key.")
            if key != self._api_key:
                raise unauthorized(f"Invalid API Key provided: {key[:8]}{'*' * 8}{key[-4:]}")
        if not self._faults.admits():
            raise too_fast()

    def _run(self, operation: Operation, call: Call) -> bytes:
        thing = operation(self._account, call)
        if "expand" in call.params:
            thing = expand(self._account, call, thing)
        return to_json(thing).encode()

    async def _act(
        self, operation: Operation, call: Call, path: str, form: str, common: dict[str, str]
    ) -> Reply:
        """A POST: replayed if its key has an answer, else done, kept, made durable and answered."""
        faults, key = self._faults.faults, call.idempotency_key
        if hits(faults.error_rate):
            raise broken()
        print_of = b""
        if key is not None:
            common["Idempotency-Key"] = key
            print_of = fingerprint(path, form)
            stored = self.answers.stored(key, print_of)
            if stored is not None:
                return Reply(stored.status, stored.body, common | {"Idempotent-Replayed": "true"})
        reply = self._done(operation, call)
        if hits(faults.error_after_rate):
            reply = Answer(500, to_json(broken().body()).encode())
        await self._keep(key, print_of, reply)
        advice = {"Stripe-Should-Retry": "false"} if reply.status >= 500 else {}
        return Reply(reply.status, reply.body, common | advice, held=hits(faults.timeout_after_success_rate))

    def _done(self, operation: Operation, call: Call) -> Answer:
        try:
            return Answer(200, self._run(operation, call))
        except Refusal as refusal:
            if not refusal.executed:
                raise
            return Answer(refusal.status, to_json(refusal.body()).encode())

    async def _keep(self, key: str | None, print_of: bytes, reply: Answer) -> None:
        if key is None:
            await self._account.journal.durable()
            return
        self.answers.begin(key)
        try:
            self.answers.keep(key, print_of, reply)
            await self._account.journal.durable()
        finally:
            self.answers.end(key)


def _advice(refusal: Refusal) -> dict[str, Any]:
    """Headers Stripe adds to some errors."""
    if refusal.status == 429:
        return {"Stripe-Rate-Limited-Reason": "endpoint-rate"}
    return {}
