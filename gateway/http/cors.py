"""CORS: which responses pages of other origins may read (docs/api-guide.md, Keys).

Live reads are public. The two pledge routes allow every origin too: they use no cookies, and the request
itself is checked against the origins of its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.http.asgi import Header, Response
from gateway.http.router import Cors, Route

_ANY: Final = (b"access-control-allow-origin", b"*")
_EXPOSED: Final = (
    b"access-control-expose-headers",
    b"ETag, Retry-After, RateLimit, RateLimit-Policy, Idempotency-Replayed, X-Request-Id",
)
_ALLOWED: Final[Mapping[Cors, bytes]] = {
    "live": b"If-None-Match, Last-Event-ID, Cache-Control",
    "keyed": b"Authorization, Idempotency-Key, Content-Type, Prefer, If-None-Match",
}
_READABLE: Final[list[Header]] = [_ANY, _EXPOSED]


def readable(cors: Cors) -> list[Header]:
    """The headers that let a page of another origin read the response."""
    return [] if cors == "none" else _READABLE


def options(routes: Mapping[str, Route], wanted: str | None) -> Response:
    """The response to OPTIONS; `wanted` is the Access-Control-Request-Method of a preflight."""
    methods = allowed_methods(routes)
    headers: list[Header] = [(b"allow", methods.encode())]
    route = routes.get("GET" if wanted == "HEAD" else wanted or "")
    if route is not None and route.cors != "none":
        headers += [
            _ANY,
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", _ALLOWED[route.cors]),
            (b"access-control-max-age", b"7200"),
        ]
    return Response(204, headers)


def allowed_methods(routes: Mapping[str, Route]) -> str:
    """The methods of a path as the value of `Allow`."""
    methods = set(routes) | {"OPTIONS"} | ({"HEAD"} if "GET" in routes else set())
    return ", ".join(sorted(methods))
