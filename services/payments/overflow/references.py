"""References of pledges in the addresses of Payment Links: `{pledge_id}-{tag}`.

The tag is an HMAC of the pledge's id under the link's own secret. So a reference is valid for one link only,
and nobody who knows a pledge's id can make one. A stored secret outlasts a change of the installation's.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from secrets import token_hex
from typing import Final

from backbone import ids

TAG_BYTES: Final = 10


def new_secret() -> str:
    """A random secret of a link."""
    return token_hex(32)


def reference_of(pledge_id: str, secret: str) -> str:
    """A pledge's reference: letters, digits, `_` and `-`, at most 200 characters, as Stripe requires.

    https://docs.stripe.com/payment-links/url-parameters
    """
    return f"{pledge_id}-{_tag(pledge_id, secret)}"


def pledge_of(reference: str, secret: str) -> str | None:
    """The pledge of a reference; None unless it was made with this secret."""
    pledge_id, _, tag = reference.partition("-")
    if not ids.is_id(pledge_id, "plg"):
        return None
    return pledge_id if hmac.compare_digest(tag.encode(), _tag(pledge_id, secret).encode()) else None


def _tag(pledge_id: str, secret: str) -> str:
    return hmac.digest(secret.encode(), pledge_id.encode(), sha256)[:TAG_BYTES].hex()
