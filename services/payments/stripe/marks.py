"""The marks that our ids leave on Stripe's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

METADATA_PREFIX: Final = "ataa_"
REFERENCE_PREFIX: Final = "plg_"
LINK: Final = "ataa_link"
"""The metadata with the key of the Payment Link of ours (overflow/) through which an object was made."""


def is_marked(thing: Mapping[str, Any]) -> bool:
    """Whether a Stripe object is marked as ours; no other code decides this.

    The mark is metadata whose name begins with `ataa_`, or a `client_reference_id` in the form of a
    pledge's id. What is made through a Payment Link of ours carries the link's metadata.
    """
    metadata = thing.get("metadata")
    if isinstance(metadata, dict) and any(name.startswith(METADATA_PREFIX) for name in metadata):
        return True
    reference = thing.get("client_reference_id")
    return isinstance(reference, str) and reference.startswith(REFERENCE_PREFIX)
