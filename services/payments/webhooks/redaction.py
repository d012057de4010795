"""Removing personal details from the bodies of stored events, once an event is applied or ignored."""

from __future__ import annotations

import json
import re
from typing import Any, Final

PERSONAL: Final = frozenset(
    (
        "billing_details",
        "collected_information",
        "customer_details",
        "customer_email",
        "receipt_email",
        "shipping",
    )
)
"""Fields of Stripe's objects that carry personal details."""


_PERSONAL: Final = re.compile(rb'"(?:%s)":\s*[^\sn]' % b"|".join(name.encode() for name in sorted(PERSONAL)))
"""Finds a field that is not null without parsing the body."""


def without_details(body: bytes, event: dict[str, Any]) -> bytes | None:
    """The body without personal details, which are set to null in `event` too; None where it has none."""
    if _PERSONAL.search(body) is None:
        return None
    thing = (event.get("data") or {}).get("object")
    if isinstance(thing, dict):
        _redact(thing)
    bare = json.dumps(event, separators=(",", ":")).encode()
    if _PERSONAL.search(bare) is not None:
        _redact_nested(event)
        bare = json.dumps(event, separators=(",", ":")).encode()
    return bare


def _redact(thing: dict[str, Any]) -> None:
    for name in PERSONAL & thing.keys():
        thing[name] = None


def _redact_nested(thing: Any) -> None:
    if isinstance(thing, dict):
        _redact(thing)
    for each in thing.values() if isinstance(thing, dict) else thing:
        if isinstance(each, dict | list):
            _redact_nested(each)
