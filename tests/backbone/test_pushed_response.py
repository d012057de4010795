"""Responses taken over from uvicorn: in which state the connection is handed on, and under which servers."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from backbone.http import pushed_response
from backbone.http.pushed_response import PushedResponse, chunk

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class _Transport(asyncio.Transport):
    """Keeps what is written; with `is_full` the client does not read what follows."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.protocol: Any = None
        self.written = b""
        self.is_full = False
        self.reads = True
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += data
        if self.is_full:
            self.protocol.pause_writing()

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.protocol.connection_lost(None)


class _Writer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def flush(self) -> None:
        self.calls.append("flush")

    def lost(self) -> None:
        self.calls.append("lost")


class _Application:
    """Answers with a pushed response."""

    def __init__(self) -> None:
        self.response: PushedResponse | None = None
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.response = await pushed_response.begin(send, [(b"content-type", b"text/plain")])
        except RuntimeError as failure:
            self.failure = failure


async def served(
    kind: type[Any], transport: _Transport, request: bytes = REQUEST, *, leaves: bool = False
) -> _Application:
    """The application after it got a request through uvicorn's protocol `kind`, of a client that `leaves`."""
    app, state = _Application(), ServerState()
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    config.load()
    transport.protocol = kind(config=config, server_state=state, app_state={})
    transport.protocol.connection_made(transport)
    transport.protocol.data_received(request)
    if leaves:
        transport.close()
        transport.protocol = None
    await asyncio.gather(*state.tasks)
    return app


async def test_response_has_its_head_and_takes_the_connection_over() -> None:
    transport, writer = _Transport(), _Writer()
    response = (await served(HttpToolsProtocol, transport)).response
    assert response is transport.protocol
    assert transport.written.startswith(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    )
    assert transport.written.endswith(b"transfer-encoding: chunked\r\n\r\n")
    response.writer, transport.written = writer, b""
    response.write(chunk(b"body"))
    response.pause_writing()
    response.resume_writing()
    response.end(chunk(b"end"))
    assert transport.written == b"4\r\nbody\r\n3\r\nend\r\n0\r\n\r\n"
    assert writer.calls == ["flush", "lost"]


async def test_state_of_the_connection_is_handed_on() -> None:
    """The head filled the buffer, and a request was queued behind this one, which paused reading."""
    transport = _Transport()
    transport.is_full = True
    response = (await served(HttpToolsProtocol, transport, REQUEST * 2)).response
    assert response is not None
    assert response.is_paused
    assert transport.reads


async def test_client_that_has_left_gets_no_response() -> None:
    transport = _Transport()
    app = await served(HttpToolsProtocol, transport, leaves=True)
    assert (app.response, app.failure, transport.written) == (None, None, b"")


async def test_other_protocols_are_refused_before_the_head() -> None:
    transport = _Transport()
    failure = (await served(H11Protocol, transport)).failure
    assert "httptools" in str(failure)
    assert b"200" not in transport.written
