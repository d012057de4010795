"""Starts what is measured: a checkout's embedded run or its stack, in a directory of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process_usage import children_of
from rehearsal.installation import Installation
from stack.layout import OFFSETS, read_json

ROOT: Final = Path(__file__).resolve().parents[1]
FIRST_PORT: Final = 23_400
READINESS_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 40.0
SERVICES: Final = ("gateway", "pledges", "payments", "leaderboard", "notify")
_LAST_PORT: Final = 32_000


class CannotStart(Exception):
    """A system does not start, or something it needs is missing; the message says what."""


@dataclass(frozen=True, slots=True)
class System:
    """A running installation: how to reach it, and the processes it consists of.

    `processes` maps names to process ids, `metrics` has the addresses of their metrics.
    """

    name: str
    installation: Installation
    processes: Mapping[str, int]
    metrics: Mapping[str, str]
    ports: Mapping[str, int]

    @property
    def own_processes(self) -> dict[str, int]:
        """Ataa's own processes, without engines and the sandbox."""
        return {name: pid for name, pid in self.processes.items() if name in (*SERVICES, "embedded")}

    def installation_with(self, drive: str) -> Installation:
        """The installation, for another drive."""
        one = self.installation
        return Installation(
            one.directory, one.gateway_port, one.sandbox_port, one.stripe_key, one.webhook_secret, drive=drive
        )


def first_free_port() -> int:
    """A base whose ports are all free; runs at the same time begin at different ones. Raises CannotStart."""
    bases = list(range(FIRST_PORT, _LAST_PORT, 100))
    begin = os.getpid() % len(bases)
    for base in bases[begin:] + bases[:begin]:
        if all(_is_free(base + offset) for offset in OFFSETS.values()):
            return base
    raise CannotStart(f"no free ports between {FIRST_PORT} and {_LAST_PORT}")


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def embedded_system(
    checkout: Path, data: Path, base: int, settings: Mapping[str, str] | None = None
) -> Iterator[System]:
    """`python -m embedded` of a checkout on the data in `data`. Raises CannotStart."""
    environment = _environment(data, base) | dict(settings or {})
    (data / "ports.json").unlink(missing_ok=True)  # of an earlier start
    with (data / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded"], cwd=checkout, env=environment, stdout=log, stderr=log
        )
    try:
        _wait_until_ready(process, base, data)
        sandbox = children_of(process.pid)
        ports = {name: int(port) for name, port in read_json(data / "ports.json").items()}
        metrics = {"embedded": f"http://127.0.0.1:{ports['metrics']}/metrics"} if "metrics" in ports else {}
        yield System(
            "embedded",
            _installation(data, base, base + OFFSETS["sandbox"]),
            {"embedded": process.pid, **({"sandbox": sandbox[0]} if sandbox else {})},
            metrics,
            ports,
        )
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes], by: signal.Signals = signal.SIGTERM) -> None:
    """End a process by a signal, and by SIGKILL if it does not end."""
    if process.poll() is None:
        process.send_signal(by)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def stack_system(
    checkout: Path, data: Path, base: int, settings: Mapping[str, str] | None = None
) -> Iterator[System]:
    """The stack of a checkout, in `data`. Raises CannotStart."""
    environment = _environment(data, base) | dict(settings or {})
    kafka = checkout / ".ataa" / "kafka"
    kafka.mkdir(parents=True, exist_ok=True)  # the first stack of a checkout fills it
    (data / "kafka").symlink_to(kafka)
    try:
        started = _stack(checkout, environment, "up")
        if started.returncode != 0:
            raise CannotStart(f"the stack does not start: {_last_line(started.stderr or started.stdout)}")
        directory = data / "stack"
        ports = {name: int(port) for name, port in read_json(directory / "ports.json").items()}
        names = [file.stem for file in sorted((directory / "run").glob("*.json"))]
        pids = {name: int(read_json(directory / "run" / f"{name}.json").get("pid", 0)) for name in names}
        yield System(
            "stack",
            _installation(directory, ports["gateway"], ports["sandbox"]),
            {name: pid for name, pid in pids.items() if pid},
            {name: f"http://127.0.0.1:{ports[f'metrics_{name}']}/metrics" for name in SERVICES},
            ports,
        )
    finally:
        _stack(checkout, environment, "down")


def _stack(checkout: Path, environment: Mapping[str, str], command: str) -> subprocess.CompletedProcess[str]:
    # Files, not pipes: the processes of the stack outlive the command and would keep a pipe open.
    with (Path(environment["ATAA_DATA_DIR"]) / f"stack-{command}.log").open("w+") as log:
        done = subprocess.run(
            [sys.executable, "-m", "stack", command],
            cwd=checkout,
            env=environment,
            check=False,
            stdout=log,
            stderr=log,
            text=True,
        )
        log.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, log.read(), "")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _environment(data: Path, base: int) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    return own | {
        "ATAA_DATA_DIR": str(data),
        "ATAA_GATEWAY_PORT": str(base),
        "ATAA_SANDBOX_PORT": str(base + OFFSETS["sandbox"]),
        "ATAA_STACK_PORT_BASE": str(base),
        "ATAA_LOG_LEVEL": "warning",
    }


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, data: Path) -> None:
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.1)
        with socket.socket() as probe:
            listens = probe.connect_ex(("127.0.0.1", port)) == 0
        # The publishable key is made through the API, so the system answers once it is there.
        has_ports = (data / "ports.json").exists()
        if listens and has_ports and "publishable" in read_json(data / "keys.json"):
            return
    log = (data / "log").read_text(encoding="utf-8", errors="replace")
    raise CannotStart(f"the embedded run does not start: {_last_line(log)}")


def _installation(directory: Path, gateway: int, sandbox: int) -> Installation:
    return Installation(directory, gateway, sandbox, "", "", drive=f"bench-{int(time.time())}")
