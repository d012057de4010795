"""The demo's supervisor: starts, restarts, measures and stops processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rehearsal.supervisor import Child, EmbeddedProcesses, ProcessFailed, Supervisor, high_water_bytes
from tests.waiting import PATIENCE_S, until

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
print("up", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def processes(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> EmbeddedProcesses:
    def child(name: str) -> Child:
        port = unused_tcp_port_factory()
        arguments = ["-c", SERVER, str(port)]
        return Child(name, arguments, os.environ, tmp_path / f"{name}.log", f"http://127.0.0.1:{port}/")

    return EmbeddedProcesses(child("sandbox"), child("embedded"))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def test_killed_process_is_restarted_and_its_new_pid_written(
    tmp_path: Path, processes: EmbeddedProcesses
) -> None:
    pids, lines = tmp_path / "pids.json", []
    async with Supervisor(processes, pids, lines.append) as supervisor:
        first = json.loads(pids.read_text())
        assert first == {"embedded": processes.embedded.pid, "sandbox": processes.sandbox.pid}
        supervising = asyncio.create_task(supervisor.keep_alive())

        os.kill(first["embedded"], signal.SIGKILL)
        await until(lambda: json.loads(pids.read_text())["embedded"] != first["embedded"])

        second = json.loads(pids.read_text())
        assert second["sandbox"] == first["sandbox"]
        assert is_alive(second["embedded"])
        assert supervisor.restarts == 1
        assert f"process {first['embedded']} (embedded) was killed by signal 9" in lines[0]
        supervising.cancel()
    assert not is_alive(second["embedded"])
    assert not is_alive(second["sandbox"])


async def test_peak_memory_is_kept_across_restarts(tmp_path: Path, processes: EmbeddedProcesses) -> None:
    async with Supervisor(processes, tmp_path / "pids.json", print) as supervisor:
        before = supervisor.measure()
        assert set(before) == {"sandbox", "embedded", "rehearsal"}
        assert all(1 < peak < 2_000 for peak in before.values())
        os.kill(processes.embedded.pid or 0, signal.SIGKILL)
        await until(lambda: processes.embedded.exit_status() is not None)
        assert supervisor.measure()["embedded"] == before["embedded"]


async def test_failed_start_quotes_the_log(tmp_path: Path, processes: EmbeddedProcesses) -> None:
    wrong = Child(
        "embedded",
        ["-c", "raise SystemExit('ATAA_GATEWAY_PORT is not a port')"],
        os.environ,
        tmp_path / "embedded.log",
        "http://127.0.0.1:9/",
    )
    with pytest.raises(ProcessFailed, match="embedded does not start: ATAA_GATEWAY_PORT is not a port"):
        async with Supervisor(EmbeddedProcesses(processes.sandbox, wrong), tmp_path / "pids.json", print):
            pass
    assert not is_alive(processes.sandbox.pid or 0)


async def test_process_that_keeps_crashing_ends_the_demo(
    tmp_path: Path, processes: EmbeddedProcesses
) -> None:
    async with Supervisor(processes, tmp_path / "pids.json", lambda _: None) as supervisor:
        processes.embedded._arguments = [sys.executable, "-c", "raise SystemExit('no disk left')"]
        os.kill(processes.embedded.pid or 0, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ProcessFailed, match=r"embedded keeps crashing: .*no disk left"):
                await supervisor.keep_alive()


async def test_crash_point_applies_to_the_first_start_only(tmp_path: Path) -> None:
    environment = dict(os.environ) | {"ATAA_CRASH_AT": "pledges.outbox.after_ack:3"}
    arguments = ["-c", "import os; print(os.environ.get('ATAA_CRASH_AT'), flush=True)"]
    child = Child("embedded", arguments, environment, tmp_path / "log", "")

    for _ in range(2):
        child.start()
        child.stop(within_s=PATIENCE_S)

    assert (tmp_path / "log").read_text().split() == ["pledges.outbox.after_ack:3", "None"]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_processes_end_when_the_rehearsal_is_killed(tmp_path: Path, unused_tcp_port: int) -> None:
    program = (
        "import os, pathlib, sys, time; from rehearsal.supervisor import Child;"
        f"child = Child('embedded', ['-c', {SERVER!r}, '{unused_tcp_port}'], os.environ,"
        f" pathlib.Path({str(tmp_path / 'log')!r}), '');"
        "child.start(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as rehearsal:
        assert rehearsal.stdout is not None
        pid = int(rehearsal.stdout.readline())
        asyncio.run(until(lambda: "up" in (tmp_path / "log").read_text()))
        rehearsal.kill()

    asyncio.run(until(lambda: not is_alive(pid)))


def test_high_water_mark_is_in_bytes_and_zero_for_a_zombie() -> None:
    assert high_water_bytes("Name:\tpython\nVmHWM:\t   93112 kB\nVmRSS:\t 1 kB\n") == 93_112 * 1024
    assert high_water_bytes("Name:\tpython\nState:\tZ (zombie)\n") == 0
