"""A viewer that holds a live stream as an `EventSource` does, and what it must have received at the end.

https://html.spec.whatwg.org/multipage/server-sent-events.html. What disturbs it is drawn from the seed by a
source of its own: the network breaks the connection, the viewer does not read, the gateway is stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from backbone.http.service_client import ServiceUnavailable
from simulation.connection import Connection
from simulation.event_stream import Stream
from simulation.system import System
from simulation.viewer import ShownTotals
from simulation.workload import DRIVE

SHOWN: Final = frozenset({"donation.counted", "milestone.reached"})
"""The rows of the log that have a frame."""
HURRY: Final = 0.1
"""Of the delay that the gateway asks for; all of it would be longer than most runs."""
FIRST_RETRY_S: Final = 3.0
LOST_S: Final = 20.0
"""How long after the faults something may be missing: a `gap` comes up to 10 s after the figures that cover
a row, and the viewer may have stopped reading for 7 s."""
LONG_STALL_CHANCE: Final = 0.1
STOP_CHANCE: Final = 0.3
PAUSES_S: Final = (0.1, 0.7)
"""Between two disturbances."""
SHORT_STALL_S: Final = (0.1, 1.5)
LONG_STALL_S: Final = (5.2, 7.0)
"""Past 5 s the gateway drops a stream that is not read."""
STOPPED_S: Final = (0.05, 0.5)
PAGE: Final = 100
LOOK_S: Final = 0.1
"""Between two attempts to read the log, and between two looks whether something is missing."""


def holds_stream(seed: int) -> bool:
    """Whether a viewer of this seed holds a stream: with one, a seed takes a tenth longer."""
    return seed % 2 == 1


class LiveViewer:
    """Holds one stream at a time."""

    def __init__(self, system: System, seed: int) -> None:
        self.shown = ShownTotals()
        self._last_id: int | None = None
        self._retry_s = FIRST_RETRY_S
        self._system = system
        self._chance = random.Random(f"live viewer {seed}")  # noqa: S311 - it has to repeat
        self._began: int | None = None
        self._rows: dict[int, Mapping[str, Any]] = {}
        self._told: set[int] = set()
        self._covered = 0
        self._stream: Stream | None = None
        self._refused = False
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: dict[asyncio.Task[None], None] = {}
        self._violations: list[str] = []

    def begin(self, *, disturbed: bool) -> None:
        """Hold a stream until the run ends."""
        self._tasks.append(asyncio.create_task(self._watch()))
        if disturbed:
            self._tasks.append(asyncio.create_task(self._disturb()))

    async def _watch(self) -> None:
        """Hold a stream, and another one whenever it has ended."""
        while True:
            try:
                self._stream = Stream(self, self._connect)
                await self._stream.ended
                self._note_end(self._stream)
            except ConnectionRefusedError:
                self._note("cannot connect")
            self._stream = None
            await asyncio.sleep(self._retry_s * HURRY)

    def _note_end(self, stream: Stream) -> None:
        """Only a drain ends a stream; all else breaks it."""
        self._refused = stream.is_whole and stream.status != 200
        if stream.is_whole and stream.status == 200 and not stream.drained:
            self._violations.append("a stream ended without a drain")
        self._note(f"gets {stream.status}{' in full' * stream.is_whole}{', drained' * stream.drained}")

    def _connect(self, stream: Stream) -> Connection:
        latency_s = self._chance.choice((0.0, 0.0, 0.01, 0.05))
        connection = Connection(self._system.run.nodes["gateway"], stream, latency_s)
        connection.send(self._request())
        self._note(f"connects after {self._last_id}")
        return connection

    def _request(self) -> bytes:
        """After a refusal, which ends an EventSource, a page makes a new one with the id in the address."""
        query, header = "", ""
        if self._last_id is not None and self._refused:
            query = f"?last_event_id={self._last_id}"
        elif self._last_id is not None:
            header = f"Last-Event-ID: {self._last_id}\r\n"
        return f"GET /v1/drives/{DRIVE}/live{query} HTTP/1.1\r\nHost: ataa.example\r\n{header}\r\n".encode()

    async def _disturb(self) -> None:
        """Until there are no more faults, and longer by one stall in some seeds."""
        chance, run = self._chance, self._system.run
        stops = chance.random() < STOP_CHANCE
        long_stall = chance.random() < LONG_STALL_CHANCE
        while True:
            await asyncio.sleep(chance.uniform(*PAUSES_S))
            if not run.plan.active:
                return
            if stops and chance.random() < 0.5:
                stops = False
                run.operations.outside(run.nodes["gateway"].stop_and_start(chance.uniform(*STOPPED_S)))
            elif long_stall and chance.random() < 0.5:
                long_stall = False
                await self._stall(chance.uniform(*LONG_STALL_S))
            else:
                await self._disturb_once(chance.choice(("break", "close", "abandon", "stall", "stall")))

    async def _disturb_once(self, how: str) -> None:
        stream = self._stream
        if stream is None:
            return
        if how == "stall":
            await self._stall(self._chance.uniform(*SHORT_STALL_S))
            return
        self._note(f"has a connection that ends: {how}")
        if how == "abandon":
            stream.connection.abandon()
        else:
            stream.connection.end(ConnectionResetError("simulated") if how == "break" else None)
        stream.lost()

    async def _stall(self, seconds: float) -> None:
        if (stream := self._stream) is None:
            return
        self._note("does not read")
        stream.connection.stop_reading()
        await asyncio.sleep(seconds)
        self._note("reads on")
        stream.connection.read_on()

    # What streams report.

    def take_retry(self, delay_s: float) -> None:
        """See `Reader`."""
        self._retry_s = delay_s

    def take_position(self, identifier: int) -> None:
        """See `Reader`."""
        self._last_id = identifier
        if self._began is None:
            self._began = identifier
            self._note(f"begins after {identifier}")

    def take_row(self, row: Mapping[str, Any]) -> None:
        """See `Reader`."""
        sequence = row["sequence"]
        last = next(reversed(self._rows), self._began or 0)
        if sequence != self._last_id or sequence <= last:
            self._violations.append(f"the stream sent {sequence} as {self._last_id} after {last}")
        self._rows[sequence] = row
        self._note(f"receives {sequence}")

    def take_totals(self, totals: Mapping[str, Any]) -> None:
        """See `Reader`."""
        version = (totals["epoch"], totals["sequence"], 0)
        if version[1] > 0:  # before, no snapshot was received
            self.shown.note(version, totals)
        self._covered = version[1]

    def take_gap(self, gap: Mapping[str, Any]) -> None:
        """See `Reader`. The rows are read, as a page does."""
        self._note(f"is told of a gap after {gap['after']}")
        task = asyncio.create_task(self._read(gap["events"]))
        self._reading[task] = None
        task.add_done_callback(lambda done: self._reading.pop(done, None))

    async def _read(self, address: str) -> None:
        client = self._system.request_client("gateway")
        path, _, after = address.partition("?after=")
        while True:
            try:
                query = f"after={after}&limit={PAGE}"
                reply = await client.request("GET", path, headers={}, query=query)
            except ServiceUnavailable:
                reply = None
            if reply is None or reply.status != 200:
                await asyncio.sleep(LOOK_S)
                continue
            page = reply.json()["data"]
            self._told |= {row["sequence"] for row in page}
            if len(page) < PAGE:
                return
            after = page[-1]["sequence"]

    # What must hold at the end.

    async def settle(self, read_log: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]) -> list[str]:
        """Wait until the viewer has what it must have; what does not hold then.

        The log is read at each look: a refund may fail at Stripe, and be logged, in the meantime.
        """
        log = await read_log()
        for _ in range(round(LOST_S / LOOK_S)):
            if not self._flaws(log):
                break
            await asyncio.sleep(LOOK_S)
            log = await read_log()
        flaws = self._flaws(log)
        for task in self._tasks:
            if task.done():
                task.result()
        rows = {row["sequence"]: row for row in log}
        for sequence, shown in self._rows.items():
            stored = rows.get(sequence)
            if stored is None or {name: shown.get(name) for name in stored} != stored:
                flaws.append(f"the stream showed {dict(shown)}, the log says {stored}")
        flaws += self.shown.differences({row["sequence"]: row["raised_after"]["value"] for row in log})
        return flaws + self._violations + self.shown.violations

    def _flaws(self, log: Sequence[Mapping[str, Any]]) -> list[str]:
        """What is missing, and may still come."""
        if self._began is None or self._stream is None or self._stream.status != 200:
            return ["the live viewer has no stream"]
        shown = {row["sequence"] for row in log if row["type"] in SHOWN}
        missed = {one for one in shown if one > self._began} - self._rows.keys() - self._told
        if missed:
            return [f"the live viewer missed {sorted(missed)} of {sorted(shown)}, began at {self._began}"]
        if log and self._covered != log[-1]["sequence"]:
            return [f"the stream's totals are at {self._covered} of {log[-1]['sequence']}"]
        return []

    def _note(self, text: str) -> None:
        self._system.run.trace.note(f"live viewer {text}")
