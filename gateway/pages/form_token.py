"""The token that lets a hosted form make a pledge without a key.

It proves that this installation served the page, for this drive, less than two hours ago. It is not secret.
Together with a same-origin `Origin` header the gateway accepts it in place of a publishable key. The token of
a form in a partner's frame is made for the partner's key too, and stands in for that key's origins.
"""

import hashlib
import hmac
import re
from datetime import datetime, timedelta
from typing import Final

FORM_TOKEN_LIFE: Final = timedelta(hours=2)
_SHAPE: Final = re.compile(r"f1\.([0-9]{1,11})\.([0-9a-f]{64})")


def mint_form_token(secret: bytes, drive: str, now: datetime, key_id: str = "") -> str:
    """A token for `drive` (the id the page posts to) that expires two hours after `now` (aware).

    With `key_id` it is valid only together with that publishable key.
    """
    expires = int((now + FORM_TOKEN_LIFE).timestamp())
    return f"f1.{expires}.{_seal(secret, drive, expires, key_id)}"


def check_form_token(secret: bytes, drive: str, token: str, now: datetime, key_id: str = "") -> bool:
    """Whether `token` was made for this drive and key with this secret and has not expired."""
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        return False
    expires = int(shape[1])
    sealed = hmac.compare_digest(shape[2], _seal(secret, drive, expires, key_id))
    return sealed and now.timestamp() < expires


def _seal(secret: bytes, drive: str, expires: int, key_id: str) -> str:
    # The label separates this HMAC from others with the same secret. The drive comes last, so that no slug
    # can be read as part of another expiry.
    label = f"ataa-framed-form\0{key_id}" if key_id else "ataa-form"
    text = f"{label}\0{expires}\0{drive}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()
