"""`python -m bench.floors NAME`: the servers of the floors, each the least that could do the work.

`hello` is uvicorn with a raw ASGI application, `pledges` a FastAPI route that validates a pledge, `donations`
answers a donor's requests without doing anything, `stream` sends one frame to all its clients.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final, cast

import uvicorn
from starlette.types import Receive, Scope, Send

from backbone.service import listen
from bench.child import announce
from bench.event_loop import run_on_uvloop

_HEAD_END: Final = b"\r\n\r\n"
_OPEN_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


async def serve_application(application: Any) -> None:
    """Serve an ASGI application on a free port, with the settings of the services."""
    sock = listen("127.0.0.1", 0, "the floor's own port")
    sock.listen()
    config = uvicorn.Config(
        application,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=75,
    )
    announce(sock.getsockname()[1])
    await uvicorn.Server(config).serve(sockets=[sock])


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with five bytes."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def pledge_route() -> Any:
    """A FastAPI application with one route, which validates the body of a pledge and stores nothing."""
    from fastapi import FastAPI

    from services.pledges.requests import PledgeRequest

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    # Not a route's annotation: those are strings here, and FastAPI would look the class up in the module.
    async def make_pledge(drive: str, request: Any) -> dict[str, str]:
        return {"id": "plg_00000000000000000000000000", "drive": drive, "status": "open"}

    make_pledge.__annotations__["request"] = PledgeRequest
    application.post("/v1/drives/{drive}/pledges", status_code=201)(make_pledge)
    return application


class _Donations(asyncio.Protocol):
    """Answers each request with 200 or 201 and a body that a donor can go on with."""

    def __init__(self, pledge: bytes, paid: bytes) -> None:
        self._pledge = pledge
        self._paid = paid
        self._waiting = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(_HEAD_END)) >= 0:
            head = self._waiting[:end].lower()
            place = head.find(b"\r\ncontent-length:")
            length = int(head[place + 17 :].partition(b"\r\n")[0]) if place >= 0 else 0
            if len(self._waiting) < end + 4 + length:
                return
            self._waiting = self._waiting[end + 4 + length :]
            if self._transport is not None:
                self._transport.write(self._paid if b"/pay " in head.partition(b"\r\n")[0] else self._pledge)


async def serve_donations() -> None:
    """Serve pledges that already have a checkout, and payments that succeed."""
    loop = asyncio.get_running_loop()
    replies: list[bytes] = []
    server = await loop.create_server(lambda: _Donations(*replies), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    checkout = {"url": f"http://127.0.0.1:{port}/c/cs_test_0", "client_secret": None}
    pledge = {"id": "plg_00000000000000000000000000", "token": "t", "status": "open", "checkout": checkout}
    replies += [_reply(201, pledge), _reply(200, {"payment_status": "paid"})]
    announce(port)
    async with server:
        await server.serve_forever()


def _reply(status: int, body: Any) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


class _Client(asyncio.Protocol):
    """A client of the stream; subscribed once its request is complete."""

    def __init__(self, clients: set[asyncio.Transport]) -> None:
        self._clients = clients
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and data.endswith(_HEAD_END):
            self._transport.write(_OPEN_STREAM)
            self._clients.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._clients.discard(self._transport)


async def serve_stream(frame_bytes: int, frames_per_s: float) -> None:
    """Send `frames_per_s` frames of `frame_bytes` to every client, each with the time of its making."""
    clients: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(clients), "127.0.0.1", 0, backlog=4096)
    announce(server.sockets[0].getsockname()[1])
    while True:
        await asyncio.sleep(1 / frames_per_s)
        chunk = chunk_of(frame_bytes, time.time())
        for transport in tuple(clients):
            transport.write(chunk)


def chunk_of(frame_bytes: int, at: float) -> bytes:
    """A frame (see `frame_of`) as a chunk of HTTP/1.1."""
    frame = frame_of(frame_bytes, at)
    return f"{len(frame):x}\r\n{frame}\r\n".encode()


def frame_of(frame_bytes: int, at: float) -> str:
    """A `totals` frame of `frame_bytes`, made at `at`."""
    head = f'event: totals\ndata: {{"sequence":{int(at * 1000)},"filling":"'
    return head + "x" * max(0, frame_bytes - len(head) - 4) + '"}\n\n'


def main(name: str, *arguments: str) -> None:
    """Run the floor `name` until it is ended."""
    match name:
        case "hello":
            run_on_uvloop(serve_application(hello))
        case "pledges":
            run_on_uvloop(serve_application(pledge_route()))
        case "donations":
            run_on_uvloop(serve_donations())
        case "stream":
            run_on_uvloop(serve_stream(int(arguments[0]), float(arguments[1])))
        case _:
            raise SystemExit(f"bench.floors: no floor {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
