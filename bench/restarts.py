"""Rolling restarts of two gateways under many viewers, while donations come in, on the stack.

Two gateways beside the stack's own serve the viewers. In turn each gets SIGTERM, drains its streams, ends and
starts again; its viewers reconnect to either of them with `Last-Event-ID`. At the end every viewer must have
received, or learned of by `gap`, every donation in the drive's log since it first connected.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench import single_figure
from bench.donation_run import donate
from bench.event_loop import run_on_uvloop
from bench.figures.fanout import require_open_files
from bench.progress import Progress
from bench.results import Detail
from bench.systems import ROOT, CannotStart, System, first_free_port, free_port, stack_system, stop
from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.donors import Credentials
from rehearsal.drive import open_drive
from stack.layout import read_json

READY_S: Final = 90.0
CONNECTED_S: Final = 30.0
"""How long to wait for the viewers to reconnect before the next restart; the server asks for 1 to 5 s."""
SETTLE_S: Final = 60.0
SEGMENT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """How many restarts under how many viewers, with `rate` donations a second.

    `sends_per_s` is each gateway's budget of sends, from which the rate of frames to each viewer follows.
    """

    restarts: int
    viewers: int
    rate: float
    sends_per_s: float


@dataclass(slots=True)
class GatewayReplica:
    """One gateway process on fixed ports, with the environment of the stack's own gateway."""

    environment: Mapping[str, str]
    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    def like(cls, pid: int, settings: Mapping[str, str]) -> GatewayReplica:
        """Another one beside the gateway with this process id, with other `settings`."""
        raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        pairs = (one.decode().split("=", 1) for one in raw if b"=" in one)
        port = free_port()
        own = {"ATAA_GATEWAY_PORT": str(port), "ATAA_METRICS_PORT": str(free_port())}
        environment = {**dict(pairs), **settings, **own}
        return cls(environment, port, _gateway(environment))

    async def restart(self, session: aiohttp.ClientSession) -> float:
        """SIGTERM, wait for the end, start again, wait until ready. The seconds until then."""
        began = time.monotonic()
        await asyncio.to_thread(stop, self.process)
        self.process = _gateway(self.environment)
        await self.until_ready(session)
        return time.monotonic() - began

    async def until_ready(self, session: aiohttp.ClientSession) -> None:
        """Raises CannotStart where it is not ready in time."""
        give_up = time.monotonic() + READY_S
        while time.monotonic() < give_up and self.process.poll() is None:
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{self.port}/readyz") as reply:
                    if reply.status == 200:
                        return
            await asyncio.sleep(0.1)
        raise CannotStart("a gateway of the bench does not become ready")


def _gateway(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # In a session of its own, like the stack's processes: Linux shares the CPU between sessions (autogroup).
    return subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def _gateways(pid: int, load: Load) -> Iterator[tuple[GatewayReplica, GatewayReplica]]:
    settings = {"ATAA_LIVE_SENDS_PER_S": str(load.sends_per_s)}
    pair = GatewayReplica.like(pid, settings), GatewayReplica.like(pid, settings)
    try:
        yield pair
    finally:
        for one in pair:
            stop(one.process)


class Crowd:
    """The viewers' process."""

    def __init__(self, process: asyncio.subprocess.Process, size: int) -> None:
        self._process = process
        self._size = size

    @classmethod
    async def start(cls, ports: Sequence[int], drive: str, size: int) -> Crowd:
        """Start the viewers."""
        order = json.dumps({"ports": ports, "drive": drive, "viewers": size, "within_s": SETTLE_S})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.viewers", order),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process, size)

    async def until_connected(self, within_s: float = CONNECTED_S) -> tuple[float, int]:
        """Wait until all have a stream, for `within_s` at most; the seconds, and how many have one."""
        began = time.monotonic()
        while True:
            connected = int((await self._ask("connected"))["connected"])
            waited = time.monotonic() - began
            if connected == self._size or waited > within_s:
                return waited, connected
            await asyncio.sleep(0.2)

    async def end(self) -> dict[str, int]:
        """The summary of all viewers."""
        return {name: int(value) for name, value in (await self._ask("end")).items()}

    async def close(self) -> None:
        """End the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _ask(self, question: str) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question.encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise CannotStart("the viewers' process ended")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@dataclass(slots=True)
class Restarts:
    """What was observed: durations, donations paid, the books' difference, the viewers' summary."""

    restart_s: list[float] = field(default_factory=list)
    reconnected_s: list[float] = field(default_factory=list)
    fewest_connected: int = 0
    donations: int = 0
    difference: str = ""
    summary: dict[str, int] = field(default_factory=dict)


async def observe(system: System, load: Load, progress: Progress) -> Restarts:
    """Restart the two gateways in turn while donations come in."""
    found = Restarts()
    drive = f"restarts-{time.time_ns()}"
    installation = system.installation_with(drive)
    with _gateways(system.processes["gateway"], load) as pair:
        async with new_session() as session:
            api = ApiClient(session, installation.gateway_url)
            keys = read_json(installation.directory / "keys.json")
            credentials = await open_drive(api, keys, drive, drive)
            for one in pair:
                await one.until_ready(session)
            progress.begin(f"connecting {load.viewers:,} viewers")
            crowd = await Crowd.start([one.port for one in pair], drive, load.viewers)
            ended = asyncio.Event()
            await crowd.until_connected(READY_S)
            giving = asyncio.create_task(_give(system, drive, credentials, load.rate, ended, found))
            try:
                for number in range(load.restarts):
                    progress.begin(f"restart {number + 1} of {load.restarts} under {load.viewers:,} viewers")
                    found.restart_s.append(await pair[number % 2].restart(session))
                    waited, connected = await crowd.until_connected()
                    found.reconnected_s.append(waited)
                    found.fewest_connected = min(connected, found.fewest_connected or connected)
                    if giving.done():
                        break
                ended.set()
                await giving
                found.summary = await crowd.end()
            finally:
                giving.cancel()
                await asyncio.gather(giving, return_exceptions=True)
                await crowd.close()
    return found


async def _give(
    system: System,
    drive: str,
    credentials: Credentials,
    rate: float,
    ended: asyncio.Event,
    found: Restarts,
) -> None:
    """Donate until `ended`; then a last time, until the books agree."""
    while True:
        last = ended.is_set()
        try:
            run = await donate(
                system, rate, SEGMENT_S, 1, warm_up_s=0.0, settle=last, to=(drive, credentials)
            )
        except NoAnswer:
            if last:
                raise
            continue  # the machine is too busy for the figures of this part, which are not used
        found.donations += run.paid
        found.difference = run.difference
        if last:
            return


def measure(load: Load, file: Path, note: str, progress: Progress) -> None:
    """Run on a new stack, and write the results to `file`."""
    require_open_files(load.viewers)
    with tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory:
        progress.begin("starting the stack")
        with stack_system(ROOT, Path(directory), first_free_port()) as system:
            found = run_on_uvloop(observe(system, load, progress))
            progress.begin("stopping the stack")
    details: dict[str, Detail] = {
        "restarts": len(found.restart_s),
        "rate_per_s": load.rate,
        "sends_per_s": load.sends_per_s,
        "donations": found.donations,
        "difference_of_the_books": found.difference,
        "restart_s_median": statistics.median(found.restart_s),
        "restart_s_longest": max(found.restart_s),
        "fewest_connected_before_a_restart": found.fewest_connected,
        "reconnected_s_longest": max(found.reconnected_s),
        **found.summary,
    }
    restarts = f"{len(found.restart_s)} rolling restarts of the gateway"
    what = f"frames that {load.viewers:,} viewers missed in {restarts}"
    figure = single_figure.of(what, found.summary["missed"], "frames", 0, details)
    single_figure.write(file, {"restarts": figure}, {"note": note, "load_average": os.getloadavg()[0]})
