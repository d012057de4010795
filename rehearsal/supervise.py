"""The demo's processes: started, restarted when they die, and never left behind."""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from rehearsal.stage import Stage
from stack.deaths import Deaths

READINESS_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.05
_MEASURE_S: Final = 1.0
_STOP_S: Final = 8.0
_DEATHS_ALLOWED: Final = 5
_DEATHS_WINDOW_S: Final = 30.0
_LAST_WORDS: Final = 5
_PR_SET_PDEATHSIG: Final = 1
_ROOT: Final = Path(__file__).resolve().parents[1]
"""Where the packages are, whatever directory the demo was started in."""


class CannotRun(Exception):
    """A process does not start, or dies again and again; the message ends with its last words."""


def _die_with_parent() -> None:
    """In the child, on Linux: be told to stop when the rehearsal is gone, even by SIGKILL (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process: its command, its log, and the most memory any of its incarnations had (bytes).

    `arguments` follow the interpreter; `probe` is an address that answers 200 once it is ready, or
    `tcp://host:port` that connects. `weigh` measures by process id what has children of its own.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        probe: str,
        *,
        stop_signal: int = signal.SIGTERM,
        weigh: Callable[[int], int] | None = None,
    ) -> None:
        self.name = name
        self.probe = probe
        self.peak_rss = 0
        self._arguments = [sys.executable, *arguments]
        self._environment = dict(environment)
        self._log = log
        self._stop_signal = stop_signal
        self._weigh = weigh
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = Deaths(_DEATHS_ALLOWED, _DEATHS_WINDOW_S)

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it, in a group of its own so that a terminal's Ctrl-C reaches the rehearsal only."""
        if self._process is not None:
            _close(self._process.stdin)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads here
            )
        # A crash asked for by a test is meant once, not again after each restart.
        self._environment.pop("ATAA_CRASH_AT", None)

    def exit_status(self) -> int | None:
        """None while it runs, else how it ended (negative: by that signal)."""
        return self._process.poll() if self._process is not None else None

    def died_too_often(self) -> bool:
        """Note a death; whether the last few came too fast for another try to help."""
        self._deaths.note(time.monotonic())
        return self._deaths.too_many()

    def measure(self) -> None:
        """Take the kernel's high-water mark of resident memory; where there is no /proc there is none."""
        if self._weigh is not None and self.pid is not None:
            self.peak_rss = max(self.peak_rss, self._weigh(self.pid))
            return
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        self.peak_rss = max(self.peak_rss, high_water_bytes(status))

    def last_words(self) -> str:
        """The end of its log, in one line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " | ".join(lines[-_LAST_WORDS:]) or "it said nothing"

    def ask_to_stop(self) -> None:
        """The signal it ends at, and the end of its input."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            _close(self._process.stdin)

    def stop(self, within_s: float) -> None:
        """Wait for the end; SIGKILL after `within_s`."""
        if self._process is None:
            return
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _close(self._process.stdin)


def high_water_bytes(status: str) -> int:
    """`VmHWM` of a /proc/<pid>/status, 0 where it is missing (a zombie)."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Act:
    """Processes that start together, and what is to be done once all of them are ready."""

    children: Sequence[Child]
    then: Callable[[], Awaitable[None]] = _nothing


class Cast(Protocol):
    """The processes of a demo, act by act in the order in which they start."""

    @property
    def acts(self) -> Sequence[Act]:
        """What starts first stops last."""
        ...


@dataclass(frozen=True, slots=True)
class Troupe:
    """The embedded system and the sandbox beside it."""

    sandbox: Child
    embedded: Child

    @property
    def acts(self) -> Sequence[Act]:
        """The sandbox first."""
        return (Act((self.sandbox,)), Act((self.embedded,)))


def troupe_of(stage: Stage) -> Troupe:
    """The real ones: `python -m sandbox` and `python -m embedded`, logging into the stage."""
    user = dict(os.environ)
    sandbox_probe, embedded_probe = f"{stage.sandbox_url}/livez", f"{stage.gateway_url}/readyz"
    logs = stage.directory
    return Troupe(
        Child(
            "sandbox",
            stage.sandbox_arguments(),
            stage.sandbox_environment(user),
            logs / "sandbox.log",
            sandbox_probe,
        ),
        Child(
            "embedded",
            ["-m", "embedded"],
            stage.embedded_environment(user),
            logs / "embedded.log",
            embedded_probe,
        ),
    )


class Supervised(Protocol):
    """What a demo asks of whatever runs its processes."""

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        ...

    async def keep_alive(self) -> None:
        """Runs until cancelled. Raises CannotRun where the processes cannot be kept alive."""
        ...

    def measure(self) -> Mapping[str, float]:
        """Peak resident memory of each process so far, in MB."""
        ...


class Supervisor:
    """Runs a cast and writes its pids to `pids`; use as an async context manager."""

    def __init__(
        self, cast: Cast, pids: Path, session: aiohttp.ClientSession, say: Callable[[str], None]
    ) -> None:
        self.restarts = 0
        self._acts = cast.acts
        self._troupe = [child for act in self._acts for child in act.children]
        self._pids = pids
        self._session = session
        self._say = say

    async def __aenter__(self) -> "Supervisor":
        try:
            for act in self._acts:
                for child in act.children:
                    child.start()
                self._write_pids()
                await asyncio.gather(*(self._ready(child) for child in act.children))
                await act.then()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()

    async def keep_alive(self) -> None:
        """Start again whatever dies, until cancelled. Raises CannotRun when that does not help."""
        measured_at = 0.0
        while True:
            for child in self._troupe:
                if (status := child.exit_status()) is not None:
                    self._restart(child, status)
            if time.monotonic() - measured_at >= _MEASURE_S:
                measured_at = time.monotonic()
                self.measure()
            await asyncio.sleep(_LOOK_S)

    def measure(self) -> dict[str, float]:
        """Peak resident memory of each process so far, the rehearsal's own included, in MB."""
        own = Path("/proc/self/status")
        rehearsal = high_water_bytes(own.read_text(encoding="ascii")) if own.exists() else 0
        for child in self._troupe:
            child.measure()
        peaks = {child.name: child.peak_rss for child in self._troupe} | {"rehearsal": rehearsal}
        return {name: round(peak / 1e6, 1) for name, peak in peaks.items() if peak}

    def _restart(self, child: Child, status: int) -> None:
        if child.died_too_often():
            raise CannotRun(f"{child.name} keeps dying: {child.last_words()}")
        ended = f"was killed (signal {-status})" if status < 0 else f"ended with status {status}"
        self._say(f"process {child.pid} ({child.name}) {ended}; starting it again")
        self.restarts += 1
        child.start()
        self._write_pids()

    async def _ready(self, child: Child) -> None:
        give_up = time.monotonic() + READINESS_TIMEOUT_S
        while not await self._answers(child.probe):
            if child.exit_status() is not None:
                raise CannotRun(f"{child.name} does not start: {child.last_words()}")
            if time.monotonic() > give_up:
                raise CannotRun(
                    f"{child.name} is not ready after {READINESS_TIMEOUT_S:.0f} s: {child.last_words()}"
                )
            await asyncio.sleep(0.1)

    async def _answers(self, probe: str) -> bool:
        if probe.startswith("tcp:"):
            return await _connects(probe)
        try:
            async with self._session.get(probe, timeout=aiohttp.ClientTimeout(total=2.0)) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _write_pids(self) -> None:
        pids = {child.name: child.pid for child in self._troupe if child.pid is not None}
        fresh = self._pids.with_suffix(".new")
        fresh.write_text(json.dumps(pids), encoding="utf-8")
        fresh.replace(self._pids)

    def _stop(self) -> None:
        """The last first, so that it can still reach what it needs while it drains."""
        for child in reversed(self._troupe):
            child.ask_to_stop()
            child.stop(_STOP_S)


async def _connects(probe: str) -> bool:
    place = urlsplit(probe)
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(place.hostname, place.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
