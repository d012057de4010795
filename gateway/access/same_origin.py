"""The public origin of this gateway, and whether a browser's request was sent by a page of it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from backbone.http.problems import Forbidden
from gateway.http.asgi import Request

_HOST: Final = re.compile(r"[A-Za-z0-9.\[\]:-]{1,255}", re.ASCII)


class CrossOrigin(Forbidden):
    slug, title = "cross-origin", "This may be sent from its own page only"


def origin_of(request: Request, public_url: str) -> str:
    """The public origin of the gateway: of `public_url`, else of the host that was asked; else empty."""
    host = request.headers.get("host", "")
    if public_url or _HOST.fullmatch(host) is None:
        return public_url
    return f"{request.scope.get('scheme', 'http')}://{host}"


def is_https(request: Request, public_url: str) -> bool:
    """Whether the browser sees the gateway under https: by `public_url`, else by the request itself."""
    if public_url:
        return public_url.startswith("https://")
    return request.scope.get("scheme") == "https"


def require_same_origin(request: Request, public_url: str) -> None:
    """Raises `CrossOrigin` unless the browser states that a page of this origin sent the request.

    Every browser sends `Origin` with a POST (Fetch Standard, "append a request `Origin` header"), and since
    2023 `Sec-Fetch-Site` on https and loopback (Fetch Metadata, W3C). At least one must be there, and neither
    may name another site.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    same = site == "same-origin" if origin is None else is_own_origin(origin, request, public_url)
    if not same or site not in (None, "same-origin"):
        raise CrossOrigin("Load the page again and send its form.")


def is_own_origin(origin: str, request: Request, public_url: str) -> bool:
    """Whether `origin` is that of the gateway: of `public_url`, or of the host that was asked."""
    if public_url and origin == public_url:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc == request.headers.get("host")
