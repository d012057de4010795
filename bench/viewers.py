"""`python -m bench.viewers`: viewers that reconnect as `EventSource` does, and what they missed of a drive.

A viewer keeps the last `id`, waits for the delay that the server asked for, sends the id as `Last-Event-ID`,
and after a `gap` reads the rows at the address in it. What it has received that way is compared with the
drive's whole log (`missed`). The program runs many and answers orders on standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

import aiohttp

from bench.event_loop import run_on_uvloop

SHOWN: Final = frozenset({"donation.counted", "milestone.reached"})
"""The rows of the log that have a frame."""
PAGE: Final = 100
_TOTALS: Final = b"event: totals\n"
_RETRY_S: Final = 3.0
_AT_ONCE: Final = 100
_SEQUENCE: Final = re.compile(rb'"epoch":(\d+),"sequence":(\d+)')
_ID: Final = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_EVENT: Final = re.compile(rb"^event: (\w+)$", re.MULTILINE)
_RETRY: Final = re.compile(rb"^retry: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Audience:
    """Where viewers connect: the ports of the gateways, any of which serves each of them, and the drive.

    `hurry` shortens the delays between two connections.
    """

    ports: Sequence[int]
    drive: str
    hurry: float = 1.0


@dataclass(slots=True)
class Viewer:
    """One viewer. `rows` are the sequences of the frames it received, in order of arrival.

    `began` is the sequence from which its first stream began; `told` are the sequences that it read after a
    `gap`. `went_back` counts totals older than ones before them on the same connection.
    """

    rows: list[int] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    began: int | None = None
    last_id: int | None = None
    connections: int = 0
    refused: int = 0
    gaps: int = 0
    drains: int = 0
    replayed: int = 0
    went_back: int = 0
    is_connected: bool = False
    retry_s: float = _RETRY_S
    reads: set[asyncio.Task[None]] = field(default_factory=set)

    async def watch(self, audience: Audience, session: aiohttp.ClientSession, rng: random.Random) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            port = rng.choice(audience.ports)
            stream = _Stream(self, audience.drive, f"http://127.0.0.1:{port}", session)
            try:
                await loop.create_connection(lambda stream=stream: stream, "127.0.0.1", port)  # type: ignore[misc]
                await stream.closed
            except OSError:
                self.refused += 1
            finally:
                self.is_connected = False
                stream.close()
            await asyncio.sleep(self.retry_s * audience.hurry)

    @property
    def repeated(self) -> int:
        """Frames whose sequence was not above that of the frame before."""
        return sum(later <= row for row, later in zip(self.rows, self.rows[1:], strict=False))

    def missed(self, log: Iterable[int]) -> set[int]:
        """The sequences of the log since it began that it neither received nor was told to read."""
        began = self.began or 0
        return {one for one in log if one > began} - set(self.rows) - self.told


class _Stream(asyncio.Protocol):
    """One connection of a viewer. HTTP/1.0, so that the body is not chunked."""

    def __init__(self, viewer: Viewer, drive: str, origin: str, session: aiohttp.ClientSession) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._viewer = viewer
        self._drive = drive
        self._origin = origin
        self._session = session
        self._waiting = b""
        self._has_head = False
        self._covered: tuple[int, int] | None = None
        self._replayed_to = -1
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        last = self._viewer.last_id
        resume = "" if last is None else f"Last-Event-ID: {last}\r\n"
        self._transport.write(
            f"GET /v1/drives/{self._drive}/live HTTP/1.0\r\nHost: 127.0.0.1\r\n{resume}\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data = self._waiting + data
        if not self._has_head:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._waiting = head
                return
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self._viewer.refused += 1
                self.close()
                return
            self._has_head = True
            self._viewer.connections += 1
            self._viewer.is_connected = True
        *blocks, self._waiting = data.split(b"\n\n")
        for block in blocks:
            self._take(block)

    def _take(self, block: bytes) -> None:
        viewer = self._viewer
        if block.startswith(_TOTALS):
            self._note_totals(block)
            return
        found = _EVENT.search(block)
        event = found[1] if found else b""
        if retry := _RETRY.search(block):
            viewer.retry_s = int(retry[1]) / 1000
        if identifier := _ID.search(block):
            viewer.last_id = int(identifier[1])
            if viewer.began is None:
                viewer.began = viewer.last_id
        if event in (b"donation", b"milestone") and viewer.last_id is not None:
            viewer.rows.append(viewer.last_id)
            viewer.replayed += viewer.last_id <= self._replayed_to
        elif event == b"gap":
            viewer.gaps += 1
            address = json.loads(block.partition(b"data: ")[2])["events"]
            task = asyncio.create_task(self._read(self._origin + address))
            viewer.reads.add(task)
            task.add_done_callback(viewer.reads.discard)
        elif event == b"drain":
            viewer.drains += 1

    def _note_totals(self, block: bytes) -> None:
        found = _SEQUENCE.search(block, block.rfind(b'"epoch"'))
        if found is None:
            return
        covered = int(found[1]), int(found[2])
        if self._covered is None:
            # Rows that these totals cover can only have been sent again, unless this is the first stream.
            self._replayed_to = covered[1] if self._viewer.connections > 1 else -1
        elif covered < self._covered:
            self._viewer.went_back += 1
        self._covered = covered

    async def _read(self, address: str) -> None:
        """Read the log from an address that a `gap` named to its end, in pages."""
        base, _, after = address.partition("?after=")
        rows = await read_log(self._session, [base], int(after))
        self._viewer.told |= {row["sequence"] for row in rows}


async def read_log(
    session: aiohttp.ClientSession, addresses: Sequence[str], after: int = 0
) -> list[Mapping[str, Any]]:
    """A drive's log after a sequence; each page from whichever of these addresses answers."""
    rows: list[Mapping[str, Any]] = []
    attempt = 0
    while True:
        address = addresses[attempt % len(addresses)]
        attempt += 1
        last = rows[-1]["sequence"] if rows else after
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{address}?after={last}&limit={PAGE}") as reply:
                if reply.status == 200:
                    page = (await reply.json())["data"]
                    rows += page
                    if len(page) < PAGE:
                        return rows
                    continue
        await asyncio.sleep(0.2)


def summary(viewers: Collection[Viewer], log: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What the viewers received of a drive's log, over all of them; `missed` is to be 0."""
    shown = [row["sequence"] for row in log if row["type"] in SHOWN]
    missed = [len(viewer.missed(shown)) for viewer in viewers]
    return {
        "viewers": len(viewers),
        "rows_with_a_frame": len(shown),
        "frames_expected": sum(sum(one > (v.began or 0) for one in shown) for v in viewers),
        "frames_received": sum(len(viewer.rows) for viewer in viewers),
        "frames_replayed": sum(viewer.replayed for viewer in viewers),
        "gaps_told": sum(viewer.gaps for viewer in viewers),
        "rows_read_after_gaps": sum(len(viewer.told) for viewer in viewers),
        "connections": sum(viewer.connections for viewer in viewers),
        "refused": sum(viewer.refused for viewer in viewers),
        "drains": sum(viewer.drains for viewer in viewers),
        "totals_that_went_back": sum(viewer.went_back for viewer in viewers),
        "frames_repeated": sum(viewer.repeated for viewer in viewers),
        "missed": sum(missed),
        "viewers_that_missed": sum(bool(one) for one in missed),
    }


@dataclass(slots=True)
class _Crowd:
    """All viewers of one process."""

    audience: Audience
    session: aiohttp.ClientSession
    viewers: list[Viewer]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        """Start every viewer, some at a time."""
        for number, viewer in enumerate(self.viewers):
            rng = random.Random(number)  # noqa: S311 - spreads the viewers, not a secret
            self.tasks.append(asyncio.create_task(viewer.watch(self.audience, self.session, rng)))
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0.2)

    def connected(self) -> int:
        """The viewers whose stream is open and has begun."""
        return sum(viewer.is_connected and viewer.last_id is not None for viewer in self.viewers)

    async def end(self, within_s: float) -> dict[str, int]:
        """The summary, as soon as nothing is missing, or after `within_s`."""
        origins = [f"http://127.0.0.1:{port}" for port in self.audience.ports]
        log = await read_log(
            self.session, [f"{one}/v1/drives/{self.audience.drive}/events" for one in origins]
        )
        give_up = time.monotonic() + within_s
        while True:
            found = summary(self.viewers, log)
            if not found["missed"] or time.monotonic() > give_up:
                break
            await asyncio.sleep(1.0)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return found


async def serve_orders(order: Mapping[str, Any]) -> None:
    """Run `order["viewers"]` viewers; answer each line of standard input with a line of JSON.

    `end` is answered with the summary; every other line with the number of connected viewers.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with aiohttp.ClientSession() as session:
        audience = Audience(order["ports"], order["drive"])
        crowd = _Crowd(audience, session, [Viewer() for _ in range(order["viewers"])])
        beginning = asyncio.create_task(crowd.begin())
        while line := (await reader.readline()).strip():
            ended = line == b"end"
            found = await crowd.end(order["within_s"]) if ended else {"connected": crowd.connected()}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
            if ended:
                break
        beginning.cancel()


if __name__ == "__main__":
    run_on_uvloop(serve_orders(json.loads(sys.argv[1])))
