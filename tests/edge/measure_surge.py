"""Measures a surge of viewers at the edge: readers ×100, then a killed gateway, with donations all the while.

    python -m tests.edge.measure_surge --viewers 100 --times 100 --seconds 20

Each viewer polls a drive's totals every five seconds over its own connection, with another `t=` each time. A
line of JSON for each phase: what viewers got, and how many reads reached the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import uvloop

from tests.edge.nginx import Edge, cpu_s, running_edge
from tests.edge.origin import origin_reads
from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.ports import FOLDER

POLL_S = 5.0
DRIVE = "surge"
SENT = re.compile(rb"date: ([^\r]+)", re.IGNORECASE)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
FIGURES = re.compile(rb'"as_of":"([^"]+)"|"state":"(live|frozen|catching_up)"')


@dataclass
class Seen:
    """What all viewers got in one phase."""

    statuses: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    oldest_live_s: float = 0.0
    broken: int = 0
    delays_ms: list[float] = field(default_factory=list)

    def note(self, head: bytes, body: bytes, took_s: float) -> None:
        """Count an answer; the age of figures that say `live` is from `as_of` to the answer's `Date`."""
        self.delays_ms.append(took_s * 1000)
        status = head[9:12].decode()
        self.statuses[status] += 1
        if status != "200":
            return
        found = dict(
            zip(("as_of", "state"), map(b"".join, zip(*FIGURES.findall(body), strict=True)), strict=True)
        )
        state = found["state"].decode()
        self.states[state] += 1
        if state == "live":
            sent = SENT.search(head)
            assert sent is not None, head
            age = parsedate_to_datetime(sent[1].decode()) - datetime.fromisoformat(found["as_of"].decode())
            self.oldest_live_s = max(self.oldest_live_s, age.total_seconds())


class Viewers:
    """Connected viewers, until they are cancelled; `seen` is what they got since it was last replaced."""

    def __init__(self, edge: Edge) -> None:
        self.seen = Seen()
        self._edge = edge
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, count: int) -> None:
        """Connect more viewers, spread over the poll interval."""
        self._tasks += [asyncio.create_task(self._view(number)) for number in range(count)]

    async def _view(self, number: int) -> None:
        await asyncio.sleep(random.uniform(0, POLL_S))  # noqa: S311
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._poll(number)
            self.seen.broken += 1
            await asyncio.sleep(POLL_S)

    async def _poll(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._edge.port)
        while True:
            began = time.monotonic()
            path = f"/v1/drives/{DRIVE}/totals?t={number}{began}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            assert length is not None, head
            body = await reader.readexactly(int(length[1]))
            self.seen.note(head, body, time.monotonic() - began)
            await asyncio.sleep(POLL_S - (time.monotonic() - began))

    async def stop(self) -> None:
        """Disconnect them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def phase(
    name: str,
    system: EmbeddedSystem,
    edge: Edge,
    viewers: Viewers,
    count: int,
    seconds: float,
    *,
    restart: bool = False,
) -> dict[str, Any]:
    """Observe the viewers for a time, through a kill and a start of the gateway where `restart`."""
    viewers.seen = Seen()
    before = 0 if restart else await origin_reads(system)
    cpu, began, gone_s = sum(map(cpu_s, edge.processes())), time.monotonic(), 0.0
    if restart:
        system.kill()
        await system.start()
        gone_s = time.monotonic() - began
    await asyncio.sleep(max(0.0, seconds - gone_s))
    spent, seen = time.monotonic() - began, viewers.seen
    cpu = sum(map(cpu_s, edge.processes())) - cpu
    answers = sum(seen.statuses.values())
    delays = sorted(seen.delays_ms)
    return {
        "phase": name,
        "viewers": count,
        "reads_per_s": round(answers / spent),
        "origin_reads_per_s": round((await origin_reads(system) - before) / (spent - gone_s), 2),
        "answers": dict(seen.statuses),
        "states": dict(seen.states),
        "oldest_live_s": round(seen.oldest_live_s, 1),
        "broken_connections": seen.broken,
        "p99_ms": round(delays[int(len(delays) * 0.99)], 1),
        "nginx_cpu_us_a_read": round(cpu / answers * 1e6, 1),
        "gateway_gone_s": round(gone_s, 1),
    }


async def donate(system: EmbeddedSystem) -> None:
    """A donation a second, while the system is there to take it."""
    while True:
        with suppress(Exception):
            await system.donate(DRIVE)
        await asyncio.sleep(1.0)


async def main() -> None:
    """Few viewers, many viewers, and a restart under many viewers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ[FOLDER] = temporary
        async with running(folder / "ataa", ATAA_TRUSTED_PROXIES="127.0.0.1") as system:
            await system.open_drive(DRIVE)
            await system.donate(DRIVE)
            await system.wait_for_raised(DRIVE, "25.00")
            donating = asyncio.create_task(donate(system))
            async with running_edge(folder / "edge", system.gateway_port) as edge:
                viewers, many = Viewers(edge), options.viewers * options.times
                viewers.add(options.viewers)
                await asyncio.sleep(POLL_S)
                shown = [await phase("few viewers", system, edge, viewers, options.viewers, options.seconds)]
                viewers.add(many - options.viewers)
                await asyncio.sleep(2 * POLL_S)
                shown.append(await phase("many viewers", system, edge, viewers, many, options.seconds))
                shown.append(
                    await phase("restart", system, edge, viewers, many, options.seconds, restart=True)
                )
                await viewers.stop()
            donating.cancel()
            for line in shown:
                print(json.dumps(line))  # noqa: T201 - the command's output


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
