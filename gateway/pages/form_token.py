"""The token that lets a hosted form make a pledge without a key.

It stands for "a page of ours, for this drive, less than two hours ago", and is no secret of the donor:
together with a same-origin `Origin` the gateway takes it for a publishable key.
"""

import hashlib
import hmac
import re
from datetime import datetime, timedelta
from typing import Final

FORM_TOKEN_LIFE: Final = timedelta(hours=2)
_SHAPE: Final = re.compile(r"f1\.([0-9]{1,11})\.([0-9a-f]{64})")


def mint_form_token(secret: bytes, drive: str, now: datetime) -> str:
    """A token for `drive` (the id the page posts to) that dies two hours after `now` (aware)."""
    expires = int((now + FORM_TOKEN_LIFE).timestamp())
    return f"f1.{expires}.{_seal(secret, drive, expires)}"


def check_form_token(secret: bytes, drive: str, token: str, now: datetime) -> bool:
    """Whether `token` was minted for this drive under this secret and still lives."""
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        return False
    expires = int(shape[1])
    sealed = hmac.compare_digest(shape[2], _seal(secret, drive, expires))
    return sealed and now.timestamp() < expires


def _seal(secret: bytes, drive: str, expires: int) -> str:
    # The label keeps this HMAC apart from others that may share the secret; the drive comes last,
    # so no slug can imitate another expiry.
    text = f"ataa-form\0{expires}\0{drive}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()
