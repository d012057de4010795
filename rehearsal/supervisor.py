"""Runs the demo's processes: starts them, restarts them after a crash, and stops them at the end.

Unlike the stack's supervisor, these processes never outlive the one that started them.
"""

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

from rehearsal.installation import Installation
from stack.crash_history import CrashHistory
from stack.log_tail import log_tail
from stack.probes import is_ready

READINESS_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.05
_MEASURE_S: Final = 1.0
_STOP_S: Final = 8.0
_CRASHES_ALLOWED: Final = 5
_CRASH_WINDOW_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_ROOT: Final = Path(__file__).resolve().parents[1]
"""The directory of the packages, independent of the current directory."""


class ProcessFailed(Exception):
    """A process does not start, or crashes repeatedly; the message ends with its log tail."""


def _die_with_parent() -> None:
    """In the child, on Linux: receive SIGTERM when the parent ends, even by SIGKILL (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One supervised process: its command, its log and its peak memory in bytes, across restarts.

    `arguments` follow the interpreter; `probe` is as for `stack.probes.is_ready`. `measure_bytes` measures
    the memory of a process with children, by process id.
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
        measure_bytes: Callable[[int], int] | None = None,
    ) -> None:
        self.name = name
        self.probe = probe
        self.peak_rss = 0
        self._arguments = [sys.executable, *arguments]
        self._environment = dict(environment)
        self._log = log
        self._stop_signal = stop_signal
        self._measure_bytes = measure_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._crashes = CrashHistory(_CRASHES_ALLOWED, _CRASH_WINDOW_S)

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process in its own group, so that Ctrl-C in a terminal reaches the rehearsal only."""
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
        # A crash point set by a test applies to the first start only.
        self._environment.pop("ATAA_CRASH_AT", None)

    def exit_status(self) -> int | None:
        """None while it runs, else its exit status; negative for a signal."""
        return self._process.poll() if self._process is not None else None

    def crashed_too_often(self) -> bool:
        """Record a crash; returns whether there were too many of them lately for another restart."""
        self._crashes.add(time.monotonic())
        return self._crashes.too_many()

    def measure(self) -> None:
        """Update the peak of resident memory from /proc; without /proc it stays 0."""
        if self._measure_bytes is not None and self.pid is not None:
            self.peak_rss = max(self.peak_rss, self._measure_bytes(self.pid))
            return
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        self.peak_rss = max(self.peak_rss, high_water_bytes(status))

    def log_tail(self) -> str:
        """The end of its log, in one line."""
        return log_tail(self._log)

    def request_stop(self) -> None:
        """Send its stop signal and close its standard input."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            _close(self._process.stdin)

    def stop(self, within_s: float) -> None:
        """Wait until it has ended; SIGKILL after `within_s`."""
        if self._process is None:
            return
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _close(self._process.stdin)


def high_water_bytes(status: str) -> int:
    """`VmHWM` of a /proc/<pid>/status, 0 where it is missing, as for a zombie."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()


async def _do_nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class StartGroup:
    """Processes that start together, and what to do once all are ready."""

    children: Sequence[Child]
    after_ready: Callable[[], Awaitable[None]] = _do_nothing


class ProcessGroups(Protocol):
    """The processes of a demo, in groups that start one after the other."""

    @property
    def groups(self) -> Sequence[StartGroup]:
        """The groups in starting order; they stop in reverse."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedProcesses:
    """The sandbox, and Ataa in one process."""

    sandbox: Child
    embedded: Child

    @property
    def groups(self) -> Sequence[StartGroup]:
        """The sandbox starts first."""
        return (StartGroup((self.sandbox,)), StartGroup((self.embedded,)))


def embedded_processes(installation: Installation) -> EmbeddedProcesses:
    """`python -m sandbox` and `python -m embedded`, with logs in the installation's directory."""
    environment = dict(os.environ)
    sandbox_probe, embedded_probe = f"{installation.sandbox_url}/livez", f"{installation.gateway_url}/readyz"
    logs = installation.directory
    return EmbeddedProcesses(
        Child(
            "sandbox",
            installation.sandbox_arguments(),
            installation.sandbox_environment(environment),
            logs / "sandbox.log",
            sandbox_probe,
        ),
        Child(
            "embedded",
            ["-m", "embedded"],
            installation.embedded_environment(environment),
            logs / "embedded.log",
            embedded_probe,
        ),
    )


class ProcessMonitor(Protocol):
    """The part of a supervisor that a demo uses."""

    @property
    def restarts(self) -> int:
        """How many times a process was restarted."""
        ...

    async def keep_alive(self) -> None:
        """Run until cancelled. Raises ProcessFailed where restarts do not help."""
        ...

    def measure(self) -> Mapping[str, float]:
        """Peak resident memory of each process so far, in MB."""
        ...


class Supervisor:
    """Runs process groups and writes their process ids to `pids`; use as an async context manager."""

    def __init__(
        self,
        process_groups: ProcessGroups,
        pids: Path,
        print_line: Callable[[str], None],
    ) -> None:
        self.restarts = 0
        self._groups = process_groups.groups
        self._children = [child for group in self._groups for child in group.children]
        self._pids = pids
        self._print_line = print_line

    async def __aenter__(self) -> "Supervisor":
        try:
            for group in self._groups:
                for child in group.children:
                    child.start()
                self._write_pids()
                await asyncio.gather(*(self._ready(child) for child in group.children))
                await group.after_ready()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()

    async def keep_alive(self) -> None:
        """Restart crashed processes until cancelled. Raises ProcessFailed after too many crashes."""
        measured_at = 0.0
        while True:
            for child in self._children:
                if (status := child.exit_status()) is not None:
                    self._restart(child, status)
            if time.monotonic() - measured_at >= _MEASURE_S:
                measured_at = time.monotonic()
                self.measure()
            await asyncio.sleep(_POLL_S)

    def measure(self) -> dict[str, float]:
        """Peak resident memory of each process so far, including the rehearsal, in MB."""
        own = Path("/proc/self/status")
        rehearsal = high_water_bytes(own.read_text(encoding="ascii")) if own.exists() else 0
        for child in self._children:
            child.measure()
        peaks = {child.name: child.peak_rss for child in self._children} | {"rehearsal": rehearsal}
        return {name: round(peak / 1e6, 1) for name, peak in peaks.items() if peak}

    def _restart(self, child: Child, status: int) -> None:
        if child.crashed_too_often():
            raise ProcessFailed(f"{child.name} keeps crashing: {child.log_tail()}")
        ended = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        self._print_line(f"process {child.pid} ({child.name}) {ended}; restarting it")
        self.restarts += 1
        child.start()
        self._write_pids()

    async def _ready(self, child: Child) -> None:
        give_up = time.monotonic() + READINESS_TIMEOUT_S
        while not await is_ready(child.probe):
            if child.exit_status() is not None:
                raise ProcessFailed(f"{child.name} does not start: {child.log_tail()}")
            if time.monotonic() > give_up:
                raise ProcessFailed(
                    f"{child.name} is not ready after {READINESS_TIMEOUT_S:.0f} s: {child.log_tail()}"
                )
            await asyncio.sleep(0.1)

    def _write_pids(self) -> None:
        pids = {child.name: child.pid for child in self._children if child.pid is not None}
        fresh = self._pids.with_suffix(".new")
        fresh.write_text(json.dumps(pids), encoding="utf-8")
        fresh.replace(self._pids)

    def _stop(self) -> None:
        """Stop in reverse order, so that a draining process can still reach the others."""
        for child in reversed(self._children):
            child.request_stop()
            child.stop(_STOP_S)
