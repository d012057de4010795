"""Requests and answers over bare ASGI: what the hot routes need and nothing more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from starlette.types import Message, Receive, Scope, Send

from backbone.http.problems import BodyTooLarge, Invalid, Problem

Header = tuple[bytes, bytes]

BODY_LIMIT: Final = 64 * 1024
_SINGLE: Final = frozenset(
    {
        "ataa-form-token",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "origin",
        "stripe-signature",
        "traceparent",
        "x-request-id",
    }
)


class DuplicateHeader(Problem):
    status, slug, title = 400, "duplicate-header", "A header that may come once came twice"


class ClientDisconnected(Exception):
    """Nobody is there any more to answer."""


class Request:
    """One HTTP request: its ASGI scope, the matched parameters, and the body once it was read."""

    __slots__ = ("_headers", "_receive", "body_read", "method", "params", "path", "request_id", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._headers: dict[str, str] | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.params: Sequence[str] = ()
        self.request_id = ""
        self.body_read = False

    @property
    def headers(self) -> dict[str, str]:
        """Header values by lower-case name; of repeated ones the last (see `refuse_repeated`)."""
        if self._headers is None:
            self._headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self.scope["headers"]}
        return self._headers

    def refuse_repeated(self) -> None:
        """Raises `DuplicateHeader` where two hops could read two different requests."""
        if len(self.headers) == len(self.scope["headers"]):
            return
        seen = set()
        for name, _ in self.scope["headers"]:
            text = name.decode("latin-1")
            if text in seen and text in _SINGLE:
                raise DuplicateHeader(f"{text} may be sent once.")
            seen.add(text)

    def refuse_invalid_query(self) -> None:
        """Raises `Invalid` where the query holds a NUL or, percent-decoded, is not UTF-8.

        Neither can be stored or compared: a service would fail on it, or find what was not asked for.
        A lone surrogate is not UTF-8 (RFC 3629, 3). A token is only compared: a wrong one is 404, whatever
        is wrong with it.
        """
        raw: bytes = self.scope["query_string"]
        if b"%" not in raw and raw.isascii() and b"\x00" not in raw:
            return
        for part in raw.split(b"&"):
            name, _, value = (unquote_to_bytes(one) for one in part.partition(b"="))
            if name == b"token":
                continue
            detail = "must not contain the character NUL" if b"\x00" in name + value else ""
            try:
                (name + value).decode()
            except UnicodeDecodeError:
                detail = "must be UTF-8"
            if detail:
                shown = name.replace(b"\x00", b"").decode("utf-8", "replace")
                raise Invalid(
                    "The query does not fit.", errors=[{"pointer": f"/query/{shown}", "detail": detail}]
                )

    @property
    def query(self) -> str:
        """The query as sent; bytes outside ASCII percent-encoded."""
        raw: bytes = self.scope["query_string"]
        if raw.isascii():
            return raw.decode("ascii")
        return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in raw)

    @property
    def address(self) -> str:
        """The client's address, empty where there is none (a Unix socket)."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def declared_length(self) -> int | None:
        """What Content-Length says; None for a chunked body, 0 where there is none."""
        headers = self.headers
        if "transfer-encoding" in headers:
            return None
        length = headers.get("content-length", "0")
        return int(length) if length.isascii() and length.isdigit() else None

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body; raises `BodyTooLarge` as soon as it is known to exceed `limit` bytes."""
        declared = self.declared_length()
        if declared == 0:
            self.body_read = True
            return b""
        if declared is not None and declared > limit:
            raise BodyTooLarge(f"At most {limit} bytes.")
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"At most {limit} bytes.")
            parts.append(part)
            if not message.get("more_body", False):
                self.body_read = True
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def disconnected(self) -> None:
        """Returns once the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def receive(self) -> Message:
        """The next ASGI message."""
        return await self._receive()


class Response:
    """A whole reply."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Sequence[Header] = (), body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamingResponse(Protocol):
    """A reply that goes on; `run` sends it with `headers` besides its own."""

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Send the reply until it ends or the client leaves."""
        ...


_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether `If-None-Match` names `etag` (RFC 9110, 13.1.2): `*`, or one of a list, compared weakly.

    Ask it only where there is a representation: `*` matches any.
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in _ENTITY_TAG.findall(if_none_match)


def json_response(body: bytes, status: int = 200, headers: Sequence[Header] = ()) -> Response:
    """An answer of JSON bytes."""
    return Response(status, [(b"content-type", b"application/json"), *headers], body)


class AsgiResponse:
    """Another ASGI application's reply, passed through."""

    def __init__(self, app: Callable[[Any, Any, Any], Any]) -> None:
        self._app = app

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """See `StreamingResponse.run`."""

        async def add(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(request.scope, request.receive, add)


LINGER_BYTES: Final = 8 * 1024 * 1024
LINGER_S: Final = 2.0


async def linger(request: Request) -> None:
    """Read on, and throw away, what the client is still sending, within bounds.

    A socket closed with unread bytes in it is reset, and the reset may overtake the answer that
    explains it (RFC 9112, 9.6).
    """
    read = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while read < LINGER_BYTES:
                message = await request.receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                read += len(message.get("body", b""))
    except TimeoutError:
        return
