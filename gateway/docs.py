"""`/docs`: Swagger UI, served from the installed package, no CDN."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import fastapi_offline

from gateway.http.asgi import Header, Request, Response
from gateway.http.router import Handler, Route, page_routes

_SWAGGER: Final = Path(fastapi_offline.__file__).parent / "static"
_OWN: Final = Path(__file__).parent / "docs_static"
_FILES: Final = {
    "swagger-ui-bundle.js": (_SWAGGER, b"text/javascript; charset=utf-8"),
    "swagger-ui.css": (_SWAGGER, b"text/css; charset=utf-8"),
    "favicon.png": (_SWAGGER, b"image/png"),
    "start.js": (_OWN, b"text/javascript; charset=utf-8"),
}
# Swagger UI writes style attributes and draws with data: images; scripts are ours alone.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ataa: the public door</title>
<link rel="icon" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""


def docs_routes(openapi: Callable[[], Awaitable[bytes]]) -> list[Route]:
    """The page, its files, and the description it shows."""

    async def describe(request: Request) -> Response:
        return Response(200, [(b"content-type", b"application/json"), (b"cache-control", b"no-cache")],
                      await openapi())  # fmt: skip

    return [
        *page_routes("/docs", _page),
        Route("GET", "/openapi.json", describe),
        *(Route("GET", f"/docs/{name}", _file(name)) for name in _FILES),
    ]


async def _page(request: Request) -> Response:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _POLICY),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return Response(200, headers, _PAGE)


def _file(name: str) -> Handler:
    folder, kind = _FILES[name]
    held: list[tuple[bytes, bytes]] = []

    async def serve(request: Request) -> Response:
        if not held:
            body = (folder / name).read_bytes()
            held.append((body, f'"{sha256(body).hexdigest()[:16]}"'.encode()))
        body, etag = held[0]
        headers: list[Header] = [
            (b"content-type", kind),
            (b"etag", etag),
            (b"cache-control", b"no-cache"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if etag.decode() in request.headers.get("if-none-match", ""):
            return Response(304, headers)
        return Response(200, headers, body)

    return serve
