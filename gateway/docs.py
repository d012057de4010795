"""`/docs`: Swagger UI, served from the installed package, no CDN; `/docs/guide`: the API guide."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Final

import fastapi_offline

from gateway.http.asgi import Header, Request, Response
from gateway.http.conditional import not_modified, strong_etag
from gateway.http.router import Handler, Route, page_routes

_SWAGGER: Final = Path(fastapi_offline.__file__).parent / "static"
_OWN: Final = Path(__file__).parent / "docs_static"
_FILES: Final = {
    "swagger-ui-bundle.js": (_SWAGGER, b"text/javascript; charset=utf-8"),
    "swagger-ui.css": (_SWAGGER, b"text/css; charset=utf-8"),
    "favicon.png": (_SWAGGER, b"image/png"),
    "start.js": (_OWN, b"text/javascript; charset=utf-8"),
    "guide.css": (_OWN, b"text/css; charset=utf-8"),
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
<title>Ataa: API reference</title>
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


_GUIDE: Final = Path(__file__).parents[1] / "docs" / "api-guide.md"
_GUIDE_POLICY: Final = b"default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'"
_GUIDE_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ataa: API guide</title>
<link rel="stylesheet" href="/docs/guide.css">
</head>
<body><main>{}</main></body>
</html>
"""


def docs_routes(openapi: Callable[[], Awaitable[bytes]]) -> list[Route]:
    """The page, its files, and the description it shows."""

    async def describe(request: Request) -> Response:
        return Response(200, [(b"content-type", b"application/json"), (b"cache-control", b"no-cache")],
                      await openapi())  # fmt: skip

    return [
        *page_routes("/docs", _page),
        *page_routes("/docs/guide", _guide),
        Route("GET", "/openapi.json", describe),
        *(Route("GET", f"/docs/{name}", _file(name)) for name in _FILES),
    ]


async def _page(request: Request) -> Response:
    return Response(200, _html_headers(_POLICY), _PAGE)


async def _guide(request: Request) -> Response:
    return Response(200, _html_headers(_GUIDE_POLICY), _guide_html())


@cache
def _guide_html() -> bytes:
    """The guide as HTML, without its comments, which name tests."""
    from markdown_it import MarkdownIt  # here: most processes never show the guide

    text = re.sub(r"<!--.*?-->\n", "", _GUIDE.read_text(encoding="utf-8"))
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return _GUIDE_PAGE.format(html).encode()


def _html_headers(policy: bytes) -> list[Header]:
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _file(name: str) -> Handler:
    folder, kind = _FILES[name]
    held: list[tuple[bytes, str]] = []

    async def serve(request: Request) -> Response:
        if not held:
            body = (folder / name).read_bytes()
            held.append((body, strong_etag(body)))
        body, etag = held[0]
        headers: list[Header] = [
            (b"content-type", kind),
            (b"etag", etag.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-content-type-options", b"nosniff"),
        ]
        return not_modified(request, etag, headers) or Response(200, headers, body)

    return serve
