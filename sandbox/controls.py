"""The sandbox's controls under `/_sandbox`: faults, disputes, payouts, books and deliveries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from sandbox import disputes, forms, fraud_warnings, payouts
from sandbox.account import Account
from sandbox.books import books
from sandbox.errors import ApiError, invalid, unknown_url
from sandbox.faults import BadFault, FaultControl, faults_from
from sandbox.http_server import Reply
from sandbox.records import Json
from sandbox.stripe_objects import to_json

MAX_DELIVERIES: Final = 10_000


class Controls:
    """Answers `/_sandbox` without authentication: the sandbox listens on the loopback by default."""

    def __init__(self, account: Account, faults: FaultControl) -> None:
        self._account = account
        self._faults = faults
        self._routes: dict[tuple[str, str], Callable[[str, bytes], Json]] = {
            ("GET", "/_sandbox/faults"): lambda query, body: self._faults.faults.shown(),
            ("POST", "/_sandbox/faults"): self._replace_faults,
            ("POST", "/_sandbox/disputes"): self._dispute,
            ("POST", "/_sandbox/early_fraud_warnings"): self._warn,
            ("POST", "/_sandbox/payouts"): self._payouts,
            ("GET", "/_sandbox/books"): self._books,
            ("GET", "/_sandbox/deliveries"): self._deliveries,
        }

    async def answer(self, method: str, path: str, query: str, body: bytes) -> Reply:
        status = 200
        try:
            route = self._routes.get((method, path))
            if route is None:
                raise unknown_url(method, path)
            shown: Json = route(query, body)
        except ApiError as api_error:
            status, shown = api_error.status, api_error.body()
        await self._account.journal.durable()
        return Reply(status, to_json(shown).encode())

    def _replace_faults(self, query: str, body: bytes) -> Json:
        try:
            self._faults.replace(faults_from(json_of(body)))
        except BadFault as error:
            raise _unprocessable(str(error)) from None
        return self._faults.faults.shown()

    def _books(self, query: str, body: bytes) -> Json:
        everything = forms.boolean(forms.decode(query), "with_foreign")
        return books(self._account.journal, with_foreign=everything is True)

    def _dispute(self, query: str, body: bytes) -> Json:
        requested = json_of(body)
        if not isinstance(requested, dict) or not isinstance(requested.get("payment_intent"), str):
            raise _unprocessable("expected a JSON object with payment_intent and status")
        if requested.get("status") not in disputes.STATUSES:
            raise _unprocessable(f"status must be one of {', '.join(disputes.STATUSES)}")
        return disputes.set_status(
            self._account, requested["payment_intent"], requested["status"], _details(requested)
        )

    def _warn(self, query: str, body: bytes) -> Json:
        requested = json_of(body)
        if not isinstance(requested, dict) or not isinstance(requested.get("payment_intent"), str):
            raise _unprocessable("expected a JSON object with payment_intent")
        return fraud_warnings.warn(self._account, requested["payment_intent"])

    def _payouts(self, query: str, body: bytes) -> Json:
        requested = json_of(body) if body else {}
        if not isinstance(requested, dict) or requested.get("outcome") not in (None, "paid", "failed"):
            raise _unprocessable("expected a JSON object; outcome must be paid or failed")
        currency, failing = _currency(requested), requested.get("outcome") == "failed"
        return {"data": payouts.make_payouts(self._account, currency, failing=failing)}

    def _deliveries(self, query: str, body: bytes) -> Json:
        params = forms.decode(query)
        after, limit = forms.integer(params, "after") or 0, forms.integer(params, "limit")
        if limit is None:
            limit = 1000
        if not 1 <= limit <= MAX_DELIVERIES:
            raise invalid(f"limit must be between 1 and {MAX_DELIVERIES}", "limit")
        return self._account.events.deliveries(after, limit)


def _details(requested: dict[str, Any]) -> disputes.DisputeRequest:
    """The optional fields of a dispute request. Raises ApiError (422) for an invalid value."""
    for name in ("amount", "withdrawn"):
        given = requested.get(name)
        if given is not None and (type(given) is not int or given < (1 if name == "amount" else 0)):
            raise _unprocessable(f"{name} must be an integer in Stripe's minor units")
    currency, case_type = _currency(requested), requested.get("case_type")
    if case_type is not None and case_type not in disputes.CASE_TYPES:
        raise _unprocessable(f"case_type must be one of {', '.join(disputes.CASE_TYPES)}")
    return disputes.DisputeRequest(requested.get("amount"), currency, requested.get("withdrawn"), case_type)


def _currency(requested: dict[str, Any]) -> str | None:
    """The currency of a request, in upper case. Raises ApiError (422) where it is not three letters."""
    currency = requested.get("currency")
    if currency is None:
        return None
    if not (isinstance(currency, str) and len(currency) == 3 and currency.isalpha()):
        raise _unprocessable("currency must be three letters")
    return currency.upper()


def json_of(body: bytes) -> Any:
    """Decode a JSON body. Raises ApiError (400) when it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        raise invalid("The body is not JSON.") from None


def _unprocessable(message: str) -> ApiError:
    api_error = invalid(message)
    api_error.status = 422
    return api_error
