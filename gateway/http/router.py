"""Routing by method and path. The parts of a path lead through a tree; no regular expression per route."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from backbone.http.problems import NotFound
from gateway.http.asgi import Request, Response, StreamingResponse

Handler = Callable[[Request], Awaitable[Response | StreamingResponse]]
Cors = Literal["none", "live", "keyed"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,63}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` has the form of an id or a slug."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Route:
    """The handler of a method and a path; `{name}` in the pattern matches an id or a slug."""

    method: str
    pattern: str
    handler: Handler
    cors: Cors = "none"


def page_routes(pattern: str, handler: Handler) -> list[Route]:
    """The route of an HTML page, and a redirect to it from the same path with a trailing slash."""
    return [Route("GET", pattern, handler), Route("GET", f"{pattern}/", _redirect_without_slash)]


async def _redirect_without_slash(request: Request) -> Response:
    query = f"?{request.query}" if request.query else ""
    return Response(308, [(b"location", f"{request.path.rstrip('/')}{query}".encode("ascii"))])


class _Node:
    __slots__ = ("children", "named", "rest", "routes")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.rest = False  # `{…}` matches the rest of the path
        self.routes: dict[str, Route] = {}


class Router:
    """The routes of the gateway, found by path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self.routes = list(routes)
        for route in self.routes:
            node = self._root
            for part in route.pattern[1:].split("/"):
                if part == "{…}":
                    node.rest = True
                elif part.startswith("{"):
                    node.named = node = node.named or _Node()
                else:
                    node = node.children.setdefault(part, _Node())
            node.routes[route.method] = route

    def find(self, path: str) -> tuple[Mapping[str, Route], list[str]]:
        """The routes of `path` by method, and the parameters in it; raises `NotFound`."""
        node, params = self._root, []
        for part in path[1:].split("/"):
            child = node.children.get(part)
            if child is not None:
                node = child
            elif node.rest:
                break
            elif node.named is not None and is_name(part):
                node = node.named
                params.append(part)
            else:
                raise NotFound
        if not node.routes:
            raise NotFound
        return node.routes, params
