"""Clients of other services: over HTTP, or in-process in the embedded run.

Both send the same requests to the same ASGI application. In-process calls avoid sockets and HTTP parsing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
from starlette.types import ASGIApp, Message, Scope

from backbone.http.caller import sign_caller
from backbone.telemetry import TRACEPARENT

TIMEOUT_S: Final = 10.0


class ServiceUnavailable(Exception):
    """The other service could not be reached, or failed. The call can be retried later."""


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """A status, its headers in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class ServiceClient(Protocol):
    """A client of another service."""

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """Send a request; raises `ServiceUnavailable` where no answer came."""
        ...


async def post_internal(client: ServiceClient, secret: str, path: str, body: Any) -> Any:
    """POST JSON to an `/internal` endpoint of another service; return its JSON response.

    Raises `ServiceUnavailable` for any status but 200.
    """
    headers = {
        "content-type": "application/json",
        **sign_caller(secret, partner="ataa", scopes=("internal",)),
    }
    if (trace := TRACEPARENT.get()) is not None:
        headers["traceparent"] = trace
    reply = await client.request("POST", path, headers=headers, body=json.dumps(body).encode())
    if reply.status != 200:
        raise ServiceUnavailable(f"{path} answered {reply.status}")
    return reply.json()


class HttpServiceClient:
    """A service in another process, at `base_url`, through a connection pool."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """See `ServiceClient.request`."""
        url = f"{self._base_url}{path}" + (f"?{query}" if query else "")
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                response_headers = {name.lower(): value for name, value in response.headers.items()}
                return ServiceResponse(response.status, response_headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceUnavailable(f"{method} {path}: {type(error).__name__}") from error


class ServiceClientPools:
    """Connection pools to other processes, one per use, so that one use cannot starve another.

    With aiohttp's default pool, a hundred long-polling requests would block all others.
    """

    def __init__(self) -> None:
        self._sessions: list[aiohttp.ClientSession] = []

    def to(self, base_url: str, connections: int) -> HttpServiceClient:
        """A client with a pool of its own; must be called inside the event loop."""
        session = aiohttp.ClientSession(
            # Shorter than the servers' 75 s: no request is sent on a connection the server is closing.
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60.0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._sessions.append(session)
        return HttpServiceClient(session, base_url)

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions:
            await session.close()


class InProcessServiceClient:
    """A service in this process: calls its ASGI application as a server would.

    `app` may be set after construction, so that services can be composed with clients of each other.
    """

    def __init__(self, app: ASGIApp | None = None) -> None:
        self.app = app

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """See `ServiceClient.request`."""
        if self.app is None:
            raise ServiceUnavailable(f"{method} {path}: not started")
        status, response_headers, chunks = 0, {}, []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, response_headers
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = {
                    name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]
                }
            else:
                chunks.append(message.get("body", b""))

        sent_headers = (
            headers
            if not body or "content-length" in headers
            else {**headers, "content-length": str(len(body))}
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self.app(asgi_scope(method, path, sent_headers, query), receive, send)
        except TimeoutError as error:
            raise ServiceUnavailable(f"{method} {path}: TimeoutError") from error
        except Exception as error:
            # The framework has sent a 500 and re-raised the error for the server's log.
            if not status:
                raise ServiceUnavailable(f"{method} {path}: {type(error).__name__}") from error
        return ServiceResponse(status, response_headers, b"".join(chunks))


def asgi_scope(method: str, path: str, headers: Mapping[str, str], query: str) -> Scope:
    """The ASGI scope of an in-process request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
