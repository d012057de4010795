"""`python -m bench.open_load`: pledges at a fixed rate, whether or not the server keeps up.

A closed loop (`bench.http_load`) slows down with the server and so cannot overload it. Here a request is sent
when it is due, on a free keep-alive connection or on a new one, in a process of its own. The order comes as
JSON on standard input, the report goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from bench.event_loop import run_on_uvloop
from bench.http_load import NUMBER, BadResponse, LoadFailed, response_length
from bench.process_usage import Usage
from rehearsal.freshness import percentile

TICK_S: Final = 0.002
DRAIN_S: Final = 15.0
"""How long answers are awaited after the last request."""
_ID: Final = b'"id":"plg_'
_ID_LENGTH: Final = 30


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """Pledges to send at `per_s` for `seconds`, and processes whose CPU to measure meanwhile."""

    port: int
    request: str
    per_s: float
    seconds: float
    connections: int
    processes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenReport:
    """What became of the requests.

    `accepted` has the ids of the pledges that were answered 201, `in_time` of them before the last request
    was due. `refused` were answered 503 with `Retry-After`. `unsent` found no free connection. Delays are in
    ms, from when a request was due.
    """

    seconds: float
    due: int
    unsent: int
    accepted: list[str]
    in_time: int
    refused: int
    errors: int
    first_error: str
    unanswered: int
    p50_ms: float | None
    p99_ms: float | None
    refused_p50_ms: float | None
    refused_p99_ms: float | None
    most_connections: int
    cores: Mapping[str, float]


class OpenLoad:
    """The state of all connections, and what was measured."""

    def __init__(self, order: OpenOrder) -> None:
        self.order = order
        self.free: list[_Connection] = []
        self.opened = 0
        self.due = self.unsent = self.in_time = self.refused = self.errors = 0
        self.waiting = 0
        self.over = False
        self.first_error = ""
        self.accepted: list[str] = []
        self.delays: list[float] = []
        self.refused_delays: list[float] = []
        self._template = order.request.encode()

    def request(self) -> bytes:
        """The next request, with a number of its own."""
        return self._template.replace(NUMBER, b"%010d" % self.due)

    def note(self, response: bytes, delay_s: float) -> None:
        """Count a response."""
        self.waiting -= 1
        status = response[9:12]
        if status == b"201":
            place = response.find(_ID) + 6
            self.accepted.append(response[place : place + _ID_LENGTH].decode("ascii", "replace"))
            self.delays.append(delay_s)
            self.in_time += not self.over
        elif status == b"503" and b"\r\nretry-after: " in response.lower():
            self.refused += 1
            self.refused_delays.append(delay_s)
        else:
            self.note_error(response[:300].decode("utf-8", "replace"))

    def note_error(self, reason: str) -> None:
        """Count an error; keep the first."""
        self.errors += 1
        self.first_error = self.first_error or reason[:300]


class _Connection(asyncio.Protocol):
    """One keep-alive connection, free or with one request."""

    def __init__(self, load: OpenLoad) -> None:
        self._load = load
        self._waiting = b""
        self._due_at: float | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.opened -= 1
        if self in self._load.free:
            self._load.free.remove(self)
        if self._due_at is not None:
            self._load.waiting -= 1
            self._load.note_error(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        data = self._waiting + data
        try:
            length = response_length(data)
        except BadResponse as error:
            self._load.note_error(str(error))
            length = len(data)
        if length is None or len(data) < length or self._due_at is None:
            self._waiting = data
            return
        self._waiting = b""
        due_at, self._due_at = self._due_at, None
        self._load.note(data, asyncio.get_running_loop().time() - due_at)
        self._load.free.append(self)

    def send(self, request: bytes, due_at: float) -> None:
        """Send a request that was due at `due_at`."""
        assert self._transport is not None
        self._due_at = due_at
        self._transport.write(request)


async def _open_and_send(load: OpenLoad, request: bytes, due_at: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(lambda: _Connection(load), "127.0.0.1", load.order.port)
    except OSError as error:
        load.opened -= 1
        load.waiting -= 1
        load.note_error(f"no connection: {error}")
        return
    connection.send(request, due_at)


async def generate(order: OpenOrder) -> OpenReport:
    """Send what `order` says, then wait for the answers."""
    loop = asyncio.get_running_loop()
    load, opening, most = OpenLoad(order), set[asyncio.Task[None]](), 0
    processes = {**order.processes, "generator": os.getpid()}
    before, began = Usage.of(processes), loop.time()
    while (now := loop.time()) < began + order.seconds:
        while load.due < (now - began) * order.per_s:
            load.due += 1
            if not load.free and load.opened >= order.connections:
                load.unsent += 1
                continue
            load.waiting += 1
            due_at = began + load.due / order.per_s
            if load.free:
                load.free.pop().send(load.request(), due_at)
            else:
                load.opened += 1
                task = asyncio.create_task(_open_and_send(load, load.request(), due_at))
                opening.add(task)
                task.add_done_callback(opening.discard)
        most = max(most, load.opened)
        await asyncio.sleep(TICK_S)
    load.over = True
    cores = Usage.of(processes).cores_since(before)
    give_up = loop.time() + DRAIN_S
    while loop.time() < give_up:
        if not load.waiting:
            break
        await asyncio.sleep(0.05)
    return _report(load, order.seconds, most, cores)


def _report(load: OpenLoad, seconds: float, most: int, cores: Mapping[str, float]) -> OpenReport:
    delays, refused = sorted(load.delays), sorted(load.refused_delays)
    return OpenReport(
        seconds=seconds,
        due=load.due,
        unsent=load.unsent,
        accepted=load.accepted,
        in_time=load.in_time,
        refused=load.refused,
        errors=load.errors,
        first_error=load.first_error,
        unanswered=load.waiting,
        p50_ms=_ms(delays, 0.5),
        p99_ms=_ms(delays, 0.99),
        refused_p50_ms=_ms(refused, 0.5),
        refused_p99_ms=_ms(refused, 0.99),
        most_connections=most,
        cores=cores,
    )


def _ms(delays: list[float], share: float) -> float | None:
    found = percentile(delays, share)
    return None if found is None else found * 1000


async def send(order: OpenOrder) -> OpenReport:
    """Run the generator in a process of its own. Raises LoadFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.open_load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(asdict(order)).encode())
    if process.returncode != 0:
        raise LoadFailed((err.decode(errors="replace").strip().splitlines() or ["?"])[-1])
    found: dict[str, Any] = json.loads(out)
    return OpenReport(**found)


def main() -> None:
    """Read the order, send, write the report."""
    order = OpenOrder(**json.load(sys.stdin))
    json.dump(asdict(run_on_uvloop(generate(order))), sys.stdout)


if __name__ == "__main__":
    main()
