"""An HTTP server with the gateway's headers; a test chooses its answers, and reads its requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from tests.ports import free_port

CACHE = "public, max-age=1, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"


@dataclass
class SeenRequest:
    """A request as it arrived: its line's two parts, its headers by lower-case name, its body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedGateway:
    """Answers every request with `body`, `status` and `cache`, until it is stopped."""

    port: int = field(default_factory=free_port)
    status: str = "200 OK"
    cache: str = CACHE
    etag: str = 'W/"1.5.0.live"'
    state: str = "live"
    vary: str = "Accept-Encoding"
    kind: str = "application/json"
    greeting: bytes = b""
    """What each stream begins with."""
    full: bool = False
    """Whether streams are refused with 503."""
    breaks: bool = False
    """Whether a request is answered by closing its connection."""
    seen: list[SeenRequest] = field(default_factory=list)
    frames: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    """What streams send, each as soon as it is put here."""

    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            # The loop's end cancels what still waits for a request.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._answer(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *rows = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows if row)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = line.split(" ")
        self.seen.append(SeenRequest(method, target, headers, body))
        if self.breaks:
            raise ConnectionResetError
        if target.endswith("/live") and not self.full:
            await self._stream(writer)
        text = f'{{"number":{len(self.seen)},"state":"{self.state}","text":"\\"state\\":\\"live\\""}}'
        shown = {
            "content-type": self.kind,
            "content-length": str(len(text)),
            "cache-control": self.cache,
            "etag": self.etag,
            "vary": self.vary,
            "x-request-id": headers.get("x-request-id", "of the gateway"),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in shown.items() if value)
        refused = target.endswith("/live") and self.full
        status = "503 Service Unavailable" if refused else self.status
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n{text}".encode())
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        head = "content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}transfer-encoding: chunked\r\n\r\n".encode())
        if self.greeting:
            writer.write(b"%x\r\n%s\r\n" % (len(self.greeting), self.greeting))
        while True:
            frame = await self.frames.get()
            writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            await writer.drain()
