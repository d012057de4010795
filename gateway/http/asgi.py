"""Requests and responses on bare ASGI, without the cost of a framework on the frequent routes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from starlette.types import Message, Receive, Scope, Send

from backbone.hex_source import HexSource
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


_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_IDS: Final = HexSource(12)


def request_id_of(supplied: str | None) -> str:
    """The client's own identifier of a request where it is valid, else a new one."""
    return supplied if supplied and _REQUEST_ID.fullmatch(supplied) else _IDS.take()


class DuplicateHeader(Problem):
    status, slug, title = 400, "duplicate-header", "Duplicate header"


class ClientDisconnected(Exception):
    """The client closed the connection before the response."""


class Request:
    """An HTTP request: its ASGI scope, the parameters of its path, and its body on demand."""

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
        """Header values by lower-case name; the last one of a repeated header (see `refuse_repeated`)."""
        if self._headers is None:
            self._headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self.scope["headers"]}
        return self._headers

    def refuse_repeated(self) -> None:
        """Raises `DuplicateHeader` for a repeated header that two servers could interpret differently."""
        if len(self.headers) == len(self.scope["headers"]):
            return
        seen = set()
        for name, _ in self.scope["headers"]:
            text = name.decode("latin-1")
            if text in seen and text in _SINGLE:
                raise DuplicateHeader(f"{text} may be sent once.")
            seen.add(text)

    def refuse_invalid_query(self) -> None:
        """Raises `Invalid` for a query that contains NUL or, percent-decoded, is not UTF-8.

        PostgreSQL can neither store nor compare such a value. A lone surrogate is not UTF-8 (RFC 3629, 3).
        `token` is exempt, because it is only compared: every wrong token is a 404.
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
                    "The query is invalid.", errors=[{"pointer": f"/query/{shown}", "detail": detail}]
                )

    @property
    def query(self) -> str:
        """The query as sent, with bytes outside ASCII percent-encoded."""
        raw: bytes = self.scope["query_string"]
        if raw.isascii():
            return raw.decode("ascii")
        return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in raw)

    @property
    def address(self) -> str:
        """The client's address; empty for a Unix socket."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def declared_length(self) -> int | None:
        """The value of Content-Length; None for a chunked or malformed length, 0 without a body."""
        headers = self.headers
        if "transfer-encoding" in headers:
            return None
        length = headers.get("content-length", "0")
        return int(length) if length.isascii() and length.isdigit() else None

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body.

        Raises `BodyTooLarge` as soon as it is known to exceed `limit` bytes, and `ClientDisconnected`.
        """
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
        """Wait until the client has closed the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def receive(self) -> Message:
        """The next ASGI message."""
        return await self._receive()


class Response:
    """A complete response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Sequence[Header] = (), body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamingResponse(Protocol):
    """A response that is sent piece by piece; `run` sends it with `headers` in addition to its own."""

    async def run(self, request: Request, send: Send, headers: list[Header]) -> None:
        """Send the response until it ends or the client disconnects."""
        ...


def json_response(body: bytes, status: int = 200, headers: Sequence[Header] = ()) -> Response:
    """A response with a JSON body."""
    return Response(status, [(b"content-type", b"application/json"), *headers], body)


class AsgiResponse:
    """The response of another ASGI application."""

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
    """Read and discard what the client is still sending, for at most 2 s and 8 MiB.

    Closing a socket with unread bytes resets the connection, and the client may see the reset before the
    response (RFC 9112, 9.6).
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
