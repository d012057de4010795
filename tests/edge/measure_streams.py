"""Measures what a stream costs: the gateway, nchan and Centrifugo on this machine, the same frames.

    python -m tests.edge.measure_streams --clients 2000 --seconds 20 [--centrifugo PATH]

Every engine sends each client 4 totals frames a second. CPU is of the sending processes alone; the gateway's
is that of the embedded process less what the same run costs with one client. The clients are in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.edge.nginx import cpu_s, pss_kib, running_edge
from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.ports import FOLDER, free_port
from tests.waiting import until

FRAMES_PER_S = 4
DRIVE = "measured"

Processes = Callable[[], Sequence[int]]


class CountingClient(asyncio.Protocol):
    """Counts the frames of a stream and their bytes."""

    def __init__(self, target: str, mark: bytes) -> None:
        self._request = f"GET {target} HTTP/1.1\r\nHost: edge\r\nAccept: text/event-stream\r\n\r\n".encode()
        self._mark = mark
        self.frames = 0
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.frames += data.count(self._mark)


@dataclass(frozen=True, slots=True)
class Engine:
    """What sends: its address, what a client asks for and counts, and its processes."""

    name: str
    port: int
    target: str
    mark: bytes
    processes: Processes


async def measure(engine: Engine, clients: int, seconds: float) -> dict[str, float | str]:
    """CPU a send and memory a client, with the given number of clients."""
    loop = asyncio.get_running_loop()
    before_kib = sum(map(pss_kib, engine.processes()))
    connected: list[CountingClient] = []
    for first in range(0, clients, 100):
        made = [
            loop.create_connection(
                lambda: CountingClient(engine.target, engine.mark), "127.0.0.1", engine.port
            )
            for _ in range(min(100, clients - first))
        ]
        connected += [protocol for _, protocol in await asyncio.gather(*made)]
    await until(lambda: all(client.frames for client in connected))
    began, cpu, own = time.monotonic(), sum(map(cpu_s, engine.processes())), time.process_time()
    frames, received = (sum(one.frames for one in connected), sum(one.received for one in connected))
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    cpu, own = sum(map(cpu_s, engine.processes())) - cpu, time.process_time() - own
    frames = sum(one.frames for one in connected) - frames
    received = sum(one.received for one in connected) - received
    after_kib = sum(map(pss_kib, engine.processes()))
    for client in connected:
        client.transport.abort()
    return {
        "engine": engine.name,
        "clients": clients,
        "frames_per_s_a_client": round(frames / clients / took, 2),
        "bytes_a_frame": round(received / max(frames, 1)),
        "cpu_cores": round(cpu / took, 3),
        "cpu_us_a_send": round(cpu / max(frames, 1) * 1e6, 2),
        "memory_kib_a_client": round((after_kib - before_kib) / clients, 1),
        "clients_cpu_cores": round(own / took, 3),
    }


async def change_figures(system: EmbeddedSystem, stop: asyncio.Event) -> None:
    """Change the drive's totals a little oftener than frames are sent."""
    number = 0
    while not stop.is_set():
        number += 1
        body = {"amount": {"currency": "USD", "value": "5.00"}}
        await system.admin("POST", f"/v1/drives/{DRIVE}/pledges", body)
        with suppress(TimeoutError):
            async with asyncio.timeout(1 / (3 * FRAMES_PER_S)):
                await stop.wait()


@asynccontextmanager
async def publishing(
    send: Callable[[aiohttp.ClientSession], Awaitable[None]],
) -> AsyncIterator[None]:
    """Send a message `FRAMES_PER_S` times a second, until the block ends."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with aiohttp.ClientSession() as session:
            while True:
                await send(session)
                due += 1 / FRAMES_PER_S
                await asyncio.sleep(max(0.0, due - loop.time()))

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()


async def of_gateway(
    folder: Path, clients: int, seconds: float
) -> tuple[list[dict[str, float | str]], bytes]:
    """The gateway's figures, and one of its totals frames."""
    # The budget of sends that makes it 4 a second: what is measured is a send's cost.
    budget = str(float(FRAMES_PER_S * clients))
    async with running(folder / "ataa", ATAA_LIVE_SENDS_PER_S=budget) as system:
        await system.open_drive(DRIVE)
        for number in range(10):
            await system.donate(DRIVE, f"{number + 5}.00", creator="star", donor={"name": f"Donor {number}"})
        await system.wait_for_raised(DRIVE, "95.00")
        totals = (await system.request("GET", f"/v1/drives/{DRIVE}/totals", Accept_Encoding="identity")).body
        assert system.embedded is not None
        pid = system.embedded.pid
        engine = Engine(
            "gateway", system.gateway_port, f"/v1/drives/{DRIVE}/live", b"event: totals", lambda: [pid]
        )
        stop = asyncio.Event()
        changing = asyncio.create_task(change_figures(system, stop))
        alone = await measure(engine, 1, seconds)
        crowd = await measure(engine, clients, seconds)
        stop.set()
        await changing
    sends = float(crowd["frames_per_s_a_client"]) * clients
    own = float(crowd["cpu_cores"]) - float(alone["cpu_cores"])
    crowd |= {"cpu_cores": round(own, 3), "cpu_us_a_send": round(own / sends * 1e6, 2)}
    frame = b"event: totals\ndata: " + json.dumps(totals, ensure_ascii=False).encode() + b"\n\n"
    return [crowd], frame


async def of_nchan(folder: Path, clients: int, seconds: float, frame: bytes) -> dict[str, float | str]:
    """The figures of nginx with nchan."""
    site = {
        "nchan_drives.conf": f"{DRIVE} {DRIVE};\n",
        "stream_limits.conf": "",  # all clients have one address
    }
    async with running_edge(folder / "edge", free_port(), main="nginx-nchan.conf", site=site) as edge:

        async def send(session: aiohttp.ClientSession) -> None:
            url = f"http://127.0.0.1:{edge.publisher_port}/publish/{DRIVE}"
            async with session.post(url, data=frame) as answer:
                assert answer.status in (201, 202), answer.status

        target = f"/v1/drives/{DRIVE}/live"
        async with publishing(send):
            return await measure(
                Engine("nchan", edge.port, target, b"event: totals", edge.processes), clients, seconds
            )


async def of_centrifugo(
    program: str, folder: Path, clients: int, seconds: float, frame: bytes
) -> dict[str, float | str]:
    """The figures of Centrifugo: server-sent events without its client library, a message as a string."""
    port = free_port()
    settings = {
        "http_server": {"port": str(port), "address": "127.0.0.1"},
        "http_api": {"key": "k"},
        "client": {"insecure": True, "allow_anonymous_connect_without_token": True},
        "uni_sse": {"enabled": True},
        "channel": {"without_namespace": {"allow_subscribe_for_client": True, "history_size": 0}},
        "log": {"level": "error"},
    }
    file = folder / "centrifugo.json"
    file.write_text(json.dumps(settings))
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [program, "-c", str(file)]
    )

    async def send(session: aiohttp.ClientSession) -> None:
        body = {"channel": DRIVE, "data": frame.decode()}
        url = f"http://127.0.0.1:{port}/api/publish"
        with suppress(aiohttp.ClientConnectorError):
            async with session.post(url, json=body, headers={"X-API-Key": "k"}) as answer:
                assert answer.status == 200, await answer.text()

    target = f"/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{DRIVE}%22%3A%7B%7D%7D%7D"
    try:
        async with publishing(send):
            await asyncio.sleep(2)
            engine = Engine("centrifugo", port, target, b'"pub"', lambda: [process.pid])
            return await measure(engine, clients, seconds)
    finally:
        process.terminate()
        process.wait()


async def main() -> None:
    """Measure each engine in turn and print a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--centrifugo", help="path of a Centrifugo v6, measured too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ[FOLDER] = temporary
        of_ours, frame = await of_gateway(folder, options.clients, options.seconds)
        rows = [*of_ours, await of_nchan(folder, options.clients, options.seconds, frame)]
        if options.centrifugo:
            rows.append(
                await of_centrifugo(options.centrifugo, folder, options.clients, options.seconds, frame)
            )
    for row in rows:
        print(json.dumps(row))  # noqa: T201 - the command's output


if __name__ == "__main__":
    asyncio.run(main())
