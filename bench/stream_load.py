"""`python -m bench.stream_load`: many clients of a live stream, in a process of its own.

Counts the `totals` frames of all clients, and measures the delay of those of every tenth client: the sequence
of a frame is the time of its publication in milliseconds. The order comes as JSON on standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, cast

from bench.event_loop import run_on_uvloop
from bench.http_load import LoadFailed
from bench.process_usage import Usage, memory_mb
from rehearsal.freshness import percentile

_FRAME: Final = b"event: totals"
_SEQUENCE: Final = b'"sequence":'
_AT_ONCE: Final = 250
"""Connections that are opened before the loop reads on."""
_SAMPLED: Final = 10
_SETTLE_S: Final = 2.0
_CONNECT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """Which stream to open how often, and the server's process id."""

    port: int
    path: str
    clients: int
    seconds: float
    server: int


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What all clients received in `seconds`, what it cost the server, and its memory a client."""

    frames: int
    frame_bytes: float
    connected: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    kib_a_client: float
    cores: Mapping[str, float]

    @property
    def us_a_send(self) -> float:
        """Microseconds of the server's CPU a frame."""
        return self.cores["server"] * self.seconds / self.frames * 1e6

    @property
    def generator_share(self) -> float:
        """The clients' part of the CPU of both."""
        return self.cores["generator"] / (sum(self.cores.values()) or 1.0)


class Watchers:
    """What the clients have received."""

    def __init__(self) -> None:
        self.measuring = False
        self.connected = 0
        self.frames = 0
        self.bytes = 0
        self.delays = array("d")


class StreamClient(asyncio.Protocol):
    """One client of the stream."""

    def __init__(self, watchers: Watchers, request: bytes, *, sampled: bool) -> None:
        self._watchers = watchers
        self._request = request
        self._sampled = sampled

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._watchers.connected += 1
        cast(asyncio.Transport, transport).write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it."""
        self._watchers.connected -= 1

    def data_received(self, data: bytes) -> None:
        """Count the frames that begin in `data`; measure the delay of one that ends in it."""
        watchers = self._watchers
        if not watchers.measuring:
            return
        watchers.frames += data.count(_FRAME)
        watchers.bytes += len(data)
        if self._sampled and (published_ms := sequence_in(data)) is not None:
            watchers.delays.append(max(0.0, time.time() * 1000 - published_ms))


def sequence_in(data: bytes) -> int | None:
    """The last complete sequence in `data`."""
    place = data.rfind(_SEQUENCE)
    if place < 0:
        return None
    digits, comma, _ = data[place + len(_SEQUENCE) : place + len(_SEQUENCE) + 20].partition(b",")
    return int(digits) if comma and digits.isdigit() else None


async def watch(order: StreamOrder) -> StreamReport:
    """Open all streams, then measure for `order.seconds`. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    watchers = Watchers()
    request = (f"GET {order.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n").encode()
    empty_mb = memory_mb(order.server, deep=True)
    async with asyncio.timeout(_CONNECT_S):
        for number in range(order.clients):
            sampled = number % _SAMPLED == 0
            await loop.create_connection(
                lambda sampled=sampled: StreamClient(watchers, request, sampled=sampled),  # type: ignore[misc]
                "127.0.0.1",
                order.port,
            )
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0.02)
    await asyncio.sleep(_SETTLE_S)
    processes = {"server": order.server, "generator": os.getpid()}
    before = Usage.of(processes)
    watchers.measuring = True
    await asyncio.sleep(order.seconds)
    watchers.measuring = False
    after = Usage.of(processes)
    full_mb = memory_mb(order.server, deep=True)
    delays = sorted(watchers.delays)
    return StreamReport(
        frames=watchers.frames,
        frame_bytes=watchers.bytes / max(watchers.frames, 1),
        connected=watchers.connected,
        seconds=after.at - before.at,
        p50_ms=percentile(delays, 0.5),
        p99_ms=percentile(delays, 0.99),
        kib_a_client=(full_mb - empty_mb) * 1e6 / 1024 / order.clients,
        cores=after.cores_since(before),
    )


def send(order: StreamOrder) -> StreamReport:
    """Run the clients in a process of their own. Raises LoadFailed where they received nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.stream_load"],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        check=False,
        timeout=order.seconds + _SETTLE_S + _CONNECT_S + 20,
    )
    if done.returncode != 0:
        raise LoadFailed(f"the clients failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    report = StreamReport(**json.loads(done.stdout))
    if not report.frames or report.connected < order.clients:
        raise LoadFailed(f"{report.frames} frames; {report.connected} of {order.clients} clients connected")
    return report


def main() -> None:
    """Read the order, watch, write the report."""
    order = StreamOrder(**json.load(sys.stdin))
    json.dump(asdict(run_on_uvloop(watch(order))), sys.stdout)


if __name__ == "__main__":
    main()
