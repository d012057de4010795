"""The marks that our ids leave on Stripe's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

METADATA_PREFIX: Final = "ataa_"
REFERENCE_PREFIX: Final = "plg_"


def is_marked(thing: Mapping[str, Any]) -> bool:
    """Whether a Stripe object is marked as ours; no other code decides this.

    The mark is metadata whose name begins with `ataa_`, or a `client_reference_id` in the form of a
    pledge's id. (Payment Links, once supported, are to be recognised here by the session's `payment_link`.)
    """
    metadata = thing.get("metadata")
    if isinstance(metadata, dict) and any(name.startswith(METADATA_PREFIX) for name in metadata):
        return True
    reference = thing.get("client_reference_id")
    return isinstance(reference, str) and reference.startswith(REFERENCE_PREFIX)
