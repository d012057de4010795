"""What Schemathesis cannot know: which drives there are, and rules between fields that JSON Schema lacks.

Loaded by Schemathesis, in its own virtual environment. Only what fits the schema is changed, so that it
also fits the state of the system; what is meant to be refused goes out as it was generated.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import time
from datetime import UTC, datetime
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

_DATA: dict[str, Any] = json.loads(os.environ["API_FUZZ_DATA"])
_RUN = os.environ["API_FUZZ_RUN"]
_calls = itertools.count()
_PAST = "2022-01-07T09:30:00Z"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Let requests that fit their schema reach the rules behind it."""
    number = next(_calls)
    if case.meta is None:
        return
    credited = isinstance(case.body, dict) and case.body.get("creator") is not None
    belongs = credited or "around" in (case.query or {})  # one who is known to that very drive
    if _fits(case, ParameterLocation.PATH) and case.path_parameters and (number % 4 or belongs):
        _name_what_exists(case, number)
    if _fits(case, ParameterLocation.PATH) and case.operation.label.startswith("PUT /v1/rates/"):
        _name_two_currencies(case.path_parameters)
    if _fits(case, ParameterLocation.QUERY) and case.query:
        _ask_for_what_exists(case)
    if _fits(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        case.body = _in_agreement(case.operation.label, case.body)
    if _fits(case, ParameterLocation.HEADER) and case.headers is not None:
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = f"{_RUN}-{number}-{case.headers['Idempotency-Key']}"[:255]
        if case.headers.get("Prefer", "").startswith("wait="):
            case.headers["Prefer"] = "wait=1"
        if "Stripe-Signature" in case.headers and isinstance(case.body, dict):
            case.headers["Stripe-Signature"] = _signature(case.body)


def _fits(case: Any, location: ParameterLocation) -> bool:
    return not case.meta.is_negative_at(location)


def _name_what_exists(case: Any, number: int) -> None:
    known = _DATA["paths"].get(case.operation.label, {})
    for name in case.path_parameters:
        values = known.get(name) or _DATA["names"].get(name, [])
        if values:
            case.path_parameters[name] = values[number % len(values)]


def _name_two_currencies(pair: dict[str, Any]) -> None:
    if pair["source"] == pair["target"]:
        pair["target"] = "EUR" if pair["source"] == "USD" else "USD"


def _ask_for_what_exists(case: Any) -> None:
    for name, value in _DATA["queries"].get(case.operation.path, {}).items():
        if name in case.query:
            board = (case.path_parameters or {}).get("board")  # meant to be refused where it is unknown
            case.query[name] = value.get(board, "") if isinstance(value, dict) else value


def _in_agreement(label: str, body: dict[str, Any]) -> dict[str, Any]:
    """`body` with one currency, shares that add up, dates in order and a creator who exists."""
    body = {name: _in_dollars(value) for name, value in body.items()}
    if label in ("POST /v1/drives", "PATCH /v1/drives/{drive}"):
        if "currency" in body:
            body["currency"] = "USD"
        if body.get("currencies"):
            body["currencies"] = [one for one in body["currencies"] if one != "USD"]
        _share_out(body.get("beneficiaries"))
        _put_in_order(body)
    if label.endswith("/offline-gifts"):
        body |= {"donor": None, "message": None, "received_at": _PAST}  # texts are not stored yet
    if label.endswith("/disbursements"):
        body |= {"beneficiary": _DATA["beneficiary"], "paid_at": _PAST}
    if label.startswith("PUT /v1/rates/"):
        body |= {"as_of": f"{datetime.now(UTC).isoformat()[:23]}Z", "confirm": True}
    if label.endswith("/matching-pools"):
        body["ends_at"] = None
    if body.get("creator") is not None:
        body["creator"] = _DATA["creator"]
    return body


def _in_dollars(value: Any) -> Any:
    """Amounts in the drives' currency; those that are already are left as they were generated."""
    if isinstance(value, list):
        return [_in_dollars(one) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"currency", "value"}:
        return value if value["currency"] == "USD" else {"currency": "USD", "value": "25.00"}
    return {name: _in_dollars(one) for name, one in value.items()}


def _share_out(beneficiaries: list[dict[str, Any]] | None) -> None:
    for index, one in enumerate(beneficiaries or ()):
        last = index == len(beneficiaries or ()) - 1
        one["share_bps"] = 10_000 - index if last else 1


def _put_in_order(body: dict[str, Any]) -> None:
    first, last = body.get("starts_at"), body.get("ends_at")
    if first and last and datetime.fromisoformat(first) >= datetime.fromisoformat(last):
        body["starts_at"] = None
    elif first or last:  # the drive that is changed may have the other one
        body |= {"starts_at": first, "ends_at": last}


def _signature(body: Any) -> str:
    """Stripe's signature of `body` as it will be sent (https://docs.stripe.com/webhooks#verify-manually)."""
    now = int(time.time())
    signed = f"{now}.".encode() + json.dumps(body).encode()
    return f"t={now},v1={hmac.new(_DATA['webhook_secret'].encode(), signed, hashlib.sha256).hexdigest()}"
