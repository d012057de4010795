"""Responses that are pushed whenever there is news, and hold no task while they are idle.

An ASGI application is a task for as long as its response takes, and uvicorn keeps the whole request for it:
parser, headers, scope, response cycle, flow control. That is most of what an open stream costs. `begin` sends
the head of such a response and takes its connection over from uvicorn; the application then returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class BodyWriter(Protocol):
    """Writes the body of a `PushedResponse`, which calls it."""

    def flush(self) -> None:
        """Write what waits: the client, which was slow, reads again."""
        ...

    def lost(self) -> None:
        """The connection is lost. Called once."""
        ...


class PushedResponse(asyncio.Protocol):
    """The body of a response whose head is sent, in place of uvicorn's protocol on its connection.

    The connection ends with the response: what the client still sends is discarded, as a server that has sent
    `Connection: close` has to (RFC 9112, 9.6).
    """

    __slots__ = ("_connections", "is_paused", "transport", "writer")

    def __init__(
        self, transport: asyncio.Transport, connections: set[Any], *, is_paused: bool = False
    ) -> None:
        self.writer: BodyWriter | None = None
        self.is_paused = is_paused
        """Whether the client reads so slowly that `write` should not be called."""
        self.transport = transport
        self._connections = connections
        connections.add(self)  # uvicorn's stop waits for them

    def write(self, chunks: bytes) -> None:
        """Send part of the body, made by `chunk`."""
        self.transport.write(chunks)

    def end(self, chunks: bytes) -> None:
        """Send the last part of the body; the connection is closed when the client has got it."""
        self.transport.write(chunks + b"0\r\n\r\n")
        self.transport.close()

    def abort(self) -> None:
        """Reset the connection. `end` would wait for a client that does not read."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.is_paused = False
        if self.writer is not None:
            self.writer.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`. A client that closes its side ends the response, as with uvicorn."""
        self._connections.discard(self)
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.lost()

    def shutdown(self) -> None:
        """uvicorn begins to stop: whoever writes the response ends it."""


def chunk(data: bytes) -> bytes:
    """`data` as a chunk of a body (RFC 9112, 7.1). It must not be empty: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def begin(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> PushedResponse | None:
    """Send the head of a response to a GET request, with status 200, and take its connection over.

    None if the client has disconnected. The caller sets `writer` before it waits for anything, and returns
    without using `send` again. Raises RuntimeError with a server other than uvicorn with httptools.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle):
        raise RuntimeError("pushed responses need uvicorn with httptools")
    head = [*headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    cycle.response_complete = True
    transport = cycle.transport
    protocol = transport.get_protocol()
    if not isinstance(protocol, HttpToolsProtocol):
        return None  # a transport that has lost its connection has no protocol
    protocol.connections.discard(protocol)
    response = PushedResponse(transport, protocol.connections, is_paused=protocol.flow.write_paused)
    transport.set_protocol(response)
    _release(protocol)
    return response


def _release(protocol: HttpToolsProtocol) -> None:
    """Do for a protocol that has lost its connection to `PushedResponse` what `connection_lost` would."""
    protocol.flow.resume_reading()
    protocol.parser = None  # type: ignore[assignment]  # it refers back to the protocol
