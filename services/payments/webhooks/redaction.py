"""A person's details in Stripe's events: struck out of the store once an event was applied."""

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
"""A person's details in Stripe's objects; struck out of the store once an event was applied."""


_PERSONAL: Final = re.compile(rb'"(?:%s)":\s*[^\sn]' % b"|".join(name.encode() for name in sorted(PERSONAL)))
"""Finds a detail that is not null, before anything is walked through."""


def without_details(body: bytes, event: dict[str, Any]) -> bytes | None:
    """The event without a person's details, which are emptied in `event` too; None where it has none."""
    if _PERSONAL.search(body) is None:
        return None
    thing = (event.get("data") or {}).get("object")
    if isinstance(thing, dict):
        _strike_out(thing)
    bare = json.dumps(event, separators=(",", ":")).encode()
    if _PERSONAL.search(bare) is not None:
        _strike_out_everywhere(event)
        bare = json.dumps(event, separators=(",", ":")).encode()
    return bare


def _strike_out(thing: dict[str, Any]) -> None:
    for name in PERSONAL & thing.keys():
        thing[name] = None


def _strike_out_everywhere(thing: Any) -> None:
    if isinstance(thing, dict):
        _strike_out(thing)
    for each in thing.values() if isinstance(thing, dict) else thing:
        if isinstance(each, dict | list):
            _strike_out_everywhere(each)
