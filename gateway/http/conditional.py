"""Conditional requests: `ETag`, `If-None-Match` and 304 (RFC 9110, 13.1.2 and 15.4.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from gateway.http.asgi import Header, Request, Response

_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def strong_etag(body: bytes) -> str:
    """The ETag of these bytes."""
    return f'"{sha256(body).hexdigest()[:16]}"'


def not_modified(request: Request, etag: str, headers: Sequence[Header]) -> Response | None:
    """The 304 response if `If-None-Match` names `etag`, else None.

    `headers` are those of the 200 response that a 304 repeats: `ETag`, `Cache-Control`, `Vary`. Call it only
    where the resource exists: `If-None-Match: *` matches any representation.
    """
    return Response(304, headers) if matches(request.headers.get("if-none-match"), etag) else None


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`: `*`, or a list of which one is equal by weak comparison."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in _ENTITY_TAG.findall(if_none_match)
