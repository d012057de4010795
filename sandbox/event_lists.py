"""`events.list` and `events.retrieve`, with the `delivery_success` filter (https://docs.stripe.com/api/events)."""

from __future__ import annotations

import json
from typing import Any

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.errors import invalid, not_found
from sandbox.listing import Clause, page_of
from sandbox.records import Json
from sandbox.stripe_objects import page_object


def list_events(account: Account, call: ApiCall) -> Json:
    """List events, newest first; filters: type (with `*`), types, created, delivery_success.

    `delivery_success=false` lists the events without a 2xx response yet, and dropped events for ever.
    """
    clauses = _type_clauses(call.params)
    delivered = forms.boolean(call.params, "delivery_success")
    if delivered is not None:
        clauses.append(_delivery_clause(account, delivered))
    by_number = delivered is False
    rows, more = page_of(account, "events", call.params, clauses, "body, n", by_number)
    return page_object([_shown(account, *row) for row in rows], more, "/v1/events")


def _type_clauses(params: dict[str, Any]) -> list[Clause]:
    kind, kinds = forms.text(params, "type"), forms.entries(params, "types")
    if kind is not None and kinds:
        raise invalid("You may pass either `type` or `types`, but not both.", "types")
    if len(kinds) > 20:
        raise invalid("You may pass up to 20 types.", "types")
    if kinds:
        return [(f"type IN ({','.join('?' * len(kinds))})", tuple(kinds))]
    if kind is None:
        return []
    return [("type GLOB ?", (kind.replace("[", "[[]").replace("?", "[?]"),))]


def _delivery_clause(account: Account, delivered: bool) -> Clause:
    """Undelivered events are few and known by number, so that the query reads no other rows."""
    numbers = json.dumps(sorted(account.events.undelivered))
    return (f"n {'NOT ' if delivered else ''}IN (SELECT value FROM json_each(?))", (numbers,))


def _shown(account: Account, body: bytes, n: int) -> Json:
    event: Json = json.loads(body)
    event["pending_webhooks"] = int(n in account.events.undelivered)
    return event


def retrieve_event(account: Account, call: ApiCall) -> Json:
    """Retrieve an event by id. Raises ApiError (404)."""
    row = account.journal.row("SELECT body, n FROM events WHERE id = ?", (call.target,))
    if row is None:
        raise not_found("event", call.target)
    return _shown(account, *row)
