"""A TCP proxy that can stop forwarding without closing anything: how a lost network looks to both ends.

What was sent meanwhile is kept, as TCP would send it again, and flows on once the hole is closed; the end
of a connection is kept back too. New connections are accepted and not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import make_url

Direction = Literal["to_server", "to_client"]
BOTH: tuple[Direction, ...] = ("to_server", "to_client")


class StallingProxy:
    """Forwards connections to one server, and can stop forwarding their data."""

    def __init__(self, url: str) -> None:
        self._there = make_url(url)
        self.url = ""
        """The database URL through the proxy, once it is open."""
        self._links: list[_Link] = []
        self._held: set[Direction] = set()
        self._listening: asyncio.Server | None = None
        self._trap: _Trap | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = int(self._listening.sockets[0].getsockname()[1])
        self.url = self._there.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def stall(self, *directions: Direction) -> None:
        """Stop forwarding in these directions (both by default), on existing and new connections."""
        self._held |= set(directions or BOTH)
        for link in self._links:
            link.hold(directions or BOTH)

    def stall_existing(self) -> None:
        """Stop forwarding on existing connections; new ones work, as after a firewall has lost its state."""
        for link in self._links:
            link.hold(BOTH)

    def stall_after(self, words: bytes, *directions: Direction, after: int = 0) -> asyncio.Event:
        """Stop the first connection that sends `words`, after `after` bytes; sets the event when it does.

        With `to_server` the words themselves do not arrive; with `to_client` only alone they do, and the
        answer does not.
        """
        self._trap = _Trap(words, directions or BOTH, after)
        return self._trap.triggered

    def resume(self) -> None:
        """Forward again, the held data first."""
        self._held.clear()
        self._trap = None
        for link in self._links:
            link.resume()

    async def close(self) -> None:
        """Close every connection."""
        if self._listening is not None:
            self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError, asyncio.CancelledError):
                answers, there = await asyncio.open_connection(self._there.host, self._there.port)
                link = _Link()
                link.hold(tuple(self._held))
                self._links.append(link)
                await asyncio.gather(
                    self._pump(reader, there, link, "to_server"),
                    self._pump(answers, writer, link, "to_client"),
                )
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, direction: Direction
    ) -> None:
        while data := await reader.read(65536):
            if direction == "to_server" and self._trap is not None and self._trap.matches(data):
                link.hold(self._trap.directions, self._trap.after)
                self._trap.triggered.set()
                self._trap = None
            await link.wait_until_forwarded(direction, len(data))
            writer.write(data)
            await writer.drain()
        await link.wait_until_forwarded(direction, 0)
        writer.close()


@dataclass
class _Trap:
    words: bytes
    directions: tuple[Direction, ...]
    after: int
    triggered: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, data: bytes) -> bool:
        return self.words in data


class _Link:
    """One connection through the proxy."""

    def __init__(self) -> None:
        self._gates: dict[Direction, asyncio.Event] = {direction: asyncio.Event() for direction in BOTH}
        self._left: dict[Direction, int] = dict.fromkeys(BOTH, 0)
        self.resume()

    def hold(self, directions: tuple[Direction, ...], after: int = 0) -> None:
        for direction in directions:
            self._left[direction] = after
            self._gates[direction].clear()

    def resume(self) -> None:
        for gate in self._gates.values():
            gate.set()

    async def wait_until_forwarded(self, direction: Direction, size: int) -> None:
        """Wait while this direction is held; bytes within the limit still pass."""
        if not self._gates[direction].is_set() and size <= self._left[direction]:
            self._left[direction] -= size
            if size:
                return
        await self._gates[direction].wait()


@asynccontextmanager
async def behind_stalling_proxy(url: str) -> AsyncIterator[StallingProxy]:
    """An open proxy in front of the PostgreSQL server at `url`."""
    proxy = StallingProxy(url)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
