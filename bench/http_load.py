"""`python -m bench.http_load`: an HTTP/1.1 load generator in a process of its own.

It keeps `connections` busy with one request each, reads only what it needs of each response, and reports its
own CPU: on a core of its own it sends several times what a Python server answers. The order comes as JSON on
standard input, the report goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from bench.event_loop import run_on_uvloop
from bench.process_usage import Usage
from rehearsal.freshness import percentile

NUMBER: Final = b"{number}"
"""Replaced in each request by ten digits that no other request of the run has."""
_HEAD_END: Final = b"\r\n\r\n"
_CONNECT_S: Final = 10.0
_DRAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, and the processes whose CPU to measure meanwhile.

    `request` is the whole request; `expected` the status that counts, every other one is an error.
    """

    port: int
    request: str
    connections: int
    seconds: float
    expected: int = 200
    warm_up_s: float = 0.5
    processes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What happened after the warm-up; `cores` has the mean CPU use of the processes and of `generator`."""

    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    first_error: str
    response_bytes: int
    cores: Mapping[str, float]

    @property
    def generator_share(self) -> float:
        """The generator's part of the CPU that was measured."""
        return self.cores["generator"] / (sum(self.cores.values()) or 1.0)


class BadResponse(Exception):
    """A response that this client cannot delimit."""


def response_length(data: bytes) -> int | None:
    """The length of the response that `data` begins with; None while its head is incomplete.

    Raises BadResponse where neither a length nor the status delimits it (RFC 9112, 6.3).
    """
    end = data.find(_HEAD_END)
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    place = head.find(b"\r\ncontent-length:")
    if place >= 0:
        return end + 4 + int(head[place + 17 :].partition(b"\r\n")[0])
    if head[9:12] in (b"304", b"204"):
        return end + 4
    raise BadResponse(f"a response without a length: {head[:40].decode('latin-1')}")


class Load:
    """The shared state of all connections: which number is next, and what was measured."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.number = 0
        self.measuring = False
        self.stopping = False
        self.delays = array("d")
        self.errors = 0
        self.first_error = ""
        self.response_bytes = 0
        self.expected = f" {order.expected} ".encode()
        self.open = 0
        self.closed = asyncio.Event()
        self._template = order.request.encode()
        self._has_number = NUMBER in self._template

    def request(self) -> bytes:
        """The next request."""
        self.number += 1
        if not self._has_number:
            return self._template
        return self._template.replace(NUMBER, b"%010d" % self.number)

    def note_error(self, reason: str) -> None:
        """Count an error; keep the first."""
        self.errors += 1
        self.first_error = self.first_error or reason[:300]


class LoadConnection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._waiting = b""
        self._length: int | None = None
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._load.open += 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that ended before it should."""
        self._load.open -= 1
        if not self._load.open:
            self._load.closed.set()
        if not self._load.stopping:
            self._load.note_error(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Once the response is complete, measure it and send the next request."""
        if self._waiting:
            data = self._waiting + data
        # Responses of a run have mostly one length, and come at once.
        if self._length is None or len(data) != self._length:
            try:
                self._length = response_length(data)
            except BadResponse as error:
                self._load.note_error(str(error))
                self._close()
                return
            if self._length is None or len(data) < self._length:
                self._waiting = data
                return
        self._waiting = b""
        self._note(data)
        if self._load.stopping:
            self._close()
        else:
            self._send()

    def _note(self, data: bytes) -> None:
        load = self._load
        if data.find(load.expected, 0, 16) < 0:
            load.note_error(data[:300].decode("utf-8", "replace"))
        elif load.measuring:
            load.delays.append(time.perf_counter() - self._sent_at)
            load.response_bytes = len(data)

    def _send(self) -> None:
        if self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(self._load.request())

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def generate(order: Order, made: Callable[[Order], Load] = Load) -> LoadReport:
    """Send what `order` says, as a load of `made`. Raises OSError where nothing listens."""
    loop = asyncio.get_running_loop()
    load = made(order)
    async with asyncio.timeout(_CONNECT_S):
        for _ in range(order.connections):
            await loop.create_connection(lambda: LoadConnection(load), "127.0.0.1", order.port)
    await asyncio.sleep(order.warm_up_s)
    processes = {**order.processes, "generator": os.getpid()}
    before, began = Usage.of(processes), time.perf_counter()
    load.measuring = True
    await asyncio.sleep(order.seconds)
    load.measuring, took_s = False, time.perf_counter() - began
    after = Usage.of(processes)
    load.stopping = True
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await load.closed.wait()
    delays = sorted(load.delays)
    return LoadReport(
        per_s=len(delays) / took_s,
        p50_ms=_ms(percentile(delays, 0.5)),
        p99_ms=_ms(percentile(delays, 0.99)),
        errors=load.errors,
        first_error=load.first_error,
        response_bytes=load.response_bytes,
        cores=after.cores_since(before),
    )


def _ms(value: float | None) -> float | None:
    return None if value is None else value * 1000


class LoadFailed(Exception):
    """The load generator measured nothing; the message has the reason."""


def send(order: Order, module: str = "bench.http_load", *arguments: str) -> LoadReport:
    """Run the generator in a process of its own. Raises LoadFailed where no response was as expected."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        check=False,
        timeout=order.seconds + order.warm_up_s + _CONNECT_S + _DRAIN_S + 10,
    )
    if done.returncode != 0:
        raise LoadFailed(f"the load generator failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    report = LoadReport(**json.loads(done.stdout))
    if not report.per_s:
        raise LoadFailed(f"no response was as expected; the first: {report.first_error}")
    return report


def get(path: str, headers: Mapping[str, str] | None = None) -> str:
    """A GET request."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return "\r\n".join((*lines, "", ""))


def post(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """A POST request with a JSON body, whose numbers (`{number}`) already count as ten digits."""
    text = json.dumps(body)
    length = len(text.encode()) + text.count("{number}") * (10 - len("{number}"))
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")) + text


def main() -> None:
    """Read the order, send, write the report."""
    order = Order(**json.load(sys.stdin))
    json.dump(asdict(run_on_uvloop(generate(order))), sys.stdout)


if __name__ == "__main__":
    main()
