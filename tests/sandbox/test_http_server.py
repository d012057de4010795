"""The HTTP server with requests that common clients do not send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandbox.http_server import MAX_BODY, HttpServer, Reply, Request
from tests.waiting import PATIENCE_S

SERVER_ERROR = Reply(500, b"broken")


async def echo(request: Request) -> Reply:
    if request.target == "/raise":
        raise RuntimeError("meant")
    text = f"{request.method} {request.target} ".encode() + request.body
    return Reply(200, text, {"X-Kept": "yes"}, "text/plain", held=request.target == "/held")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HttpServer(echo, SERVER_ERROR)
    yield await server.listen("127.0.0.1", 0)
    await server.close()


async def exchange(port: int, *parts: bytes) -> bytes:
    """Everything the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    reply = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return reply


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    last = b"GET /c HTTP/1.1\r\nConnection: close\r\n\r\n"
    reply = await exchange(
        port, b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi" + last
    )
    assert [part.rpartition(b"\r\n\r\n")[2] for part in reply.split(b"HTTP/1.1 200 OK")][1:] == [
        b"GET /a ",
        b"POST /b hi",
        b"GET /c ",
    ]
    assert reply.count(b"X-Kept: yes") == 3


async def test_chunked_and_split_bodies_are_assembled(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await exchange(port, head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")).endswith(b"POST / abcde")
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    assert (await exchange(port, head[:20], head[20:] + b"ab", b"cd")).endswith(b"POST / abcd")


async def test_expect_100_continue_is_answered(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    reply = await exchange(port, head, b"hi")
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_head_response_has_no_body(port: int) -> None:
    reply = await exchange(port, b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert reply.endswith(b"Content-Length: 7\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (MAX_BODY + 1), b"413"),
        (b"GET /raise HTTP/1.1\r\nConnection: close\r\n\r\n", b"500"),
    ],
    ids=["nonsense", "large head", "large body", "failing handler"],
)  # fmt: skip
async def test_malformed_or_oversized_request_is_refused(port: int, sent: bytes, status: bytes) -> None:
    assert (await exchange(port, sent)).split()[1] == status


async def test_held_response_is_never_sent_and_does_not_delay_closing() -> None:
    server = HttpServer(echo, SERVER_ERROR)
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /held HTTP/1.1\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    async with asyncio.timeout(PATIENCE_S):
        await server.close()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
