"""The sandbox's own door, `/_sandbox`: faults, disputes, books, and what was delivered when."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from sandbox import disputes, forms
from sandbox.account import Account
from sandbox.books import books
from sandbox.faults import BadFault, FaultDesk, faults_from
from sandbox.http_server import Reply
from sandbox.records import Json
from sandbox.refusals import Refusal, invalid, unknown_url
from sandbox.shapes import to_json

MOST_DELIVERIES: Final = 10_000


class Controls:
    """Answers `/_sandbox`; it needs no key, so the sandbox listens on the loopback only."""

    def __init__(self, account: Account, faults: FaultDesk) -> None:
        self._account = account
        self._faults = faults
        self._routes: dict[tuple[str, str], Callable[[str, bytes], Json]] = {
            ("GET", "/_sandbox/faults"): lambda query, body: self._faults.faults.shown(),
            ("POST", "/_sandbox/faults"): self._replace_faults,
            ("POST", "/_sandbox/disputes"): self._dispute,
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
        except Refusal as refusal:
            status, shown = refusal.status, refusal.body()
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
        wish = json_of(body)
        if not isinstance(wish, dict) or not isinstance(wish.get("payment_intent"), str):
            raise _unprocessable("expected a JSON object with payment_intent and status")
        if wish.get("status") not in disputes.STATUSES:
            raise _unprocessable(f"status must be one of {', '.join(disputes.STATUSES)}")
        return disputes.bring_to(self._account, wish["payment_intent"], wish["status"], _details(wish))

    def _deliveries(self, query: str, body: bytes) -> Json:
        params = forms.decode(query)
        after, limit = forms.integer(params, "after") or 0, forms.integer(params, "limit")
        if limit is None:
            limit = 1000
        if not 1 <= limit <= MOST_DELIVERIES:
            raise invalid(f"limit must be between 1 and {MOST_DELIVERIES}", "limit")
        return self._account.events.deliveries(after, limit)


def _details(wish: dict[str, Any]) -> disputes.Wish:
    """What was asked of a new dispute besides its status. Raises Refusal (422) for what is no such value."""
    for name in ("amount", "withdrawn"):
        given = wish.get(name)
        if given is not None and (type(given) is not int or given < (1 if name == "amount" else 0)):
            raise _unprocessable(f"{name} must be a whole number of Stripe's minor units")
    currency, case_type = wish.get("currency"), wish.get("case_type")
    if currency is not None and not (isinstance(currency, str) and len(currency) == 3 and currency.isalpha()):
        raise _unprocessable("currency must be three letters")
    if case_type is not None and case_type not in disputes.CASE_TYPES:
        raise _unprocessable(f"case_type must be one of {', '.join(disputes.CASE_TYPES)}")
    return disputes.Wish(wish.get("amount"), currency and currency.upper(), wish.get("withdrawn"), case_type)


def json_of(body: bytes) -> Any:
    """The JSON of a body. Raises Refusal (400) when it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        raise invalid("The body is not JSON.") from None


def _unprocessable(message: str) -> Refusal:
    refusal = invalid(message)
    refusal.status = 422
    return refusal
