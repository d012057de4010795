"""The demo as a user starts it, with a fake backend instead of Ataa and the sandbox."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.console import Screen
from rehearsal.demo import Options, run_demo
from rehearsal.installation import Installation
from rehearsal.supervisor import Child, EmbeddedProcesses
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def processes_with(miscounted: str) -> Callable[[Installation], EmbeddedProcesses]:
    """The fake backend in the place of the sandbox, and an idle process in the place of Ataa."""

    def processes(installation: Installation) -> EmbeddedProcesses:
        ports = [str(installation.gateway_port), str(installation.sandbox_port)]
        backend = ["-m", "tests.rehearsal.fake_backend", *ports, str(installation.directory), miscounted]
        sleep = ["-c", "import time; time.sleep(60)"]
        logs = installation.directory
        return EmbeddedProcesses(
            Child("sandbox", backend, os.environ, logs / "sandbox.log", f"{installation.sandbox_url}/livez"),
            Child("embedded", sleep, os.environ, logs / "embedded.log", f"{installation.gateway_url}/readyz"),
        )

    return processes


@pytest.fixture
def options(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Options:
    monkeypatch.chdir(tmp_path)
    return Options(
        data_dir=tmp_path / "data",
        gateway_port=unused_tcp_port_factory(),
        sandbox_port=unused_tcp_port_factory(),
        curve_s=1.0,
        rush_s=0.5,
        gifts=100,
        in_flight=8,
        seed=1,
        exits=True,
    )


async def test_demo_prints_a_proof_writes_a_report_and_stops_its_processes(
    options: Options, tmp_path: Path
) -> None:
    screen = Screen(Console(width=100, record=True, highlight=False))

    code = await run_demo(options, screen, processes_with(miscounted="0.00"))

    text = screen.console.export_text()
    assert code == 0, text
    assert "PROVEN" in text
    assert f"Watch it at http://127.0.0.1:{options.gateway_port}/overlay/winter" in text
    report = json.loads((tmp_path / "demo-report.json").read_text())
    assert_is_a_report(report)
    assert report["donations"] >= 100
    assert report["difference"] == {"USD": "0.00"}
    assert float(report["raised"]["USD"]) == float(report["books"]["totals"]["USD"])
    for pid in json.loads((tmp_path / "data/demo/pids.json").read_text()).values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_demo_fails_when_a_cent_is_missing(options: Options, tmp_path: Path) -> None:
    options = replace(options, drain_limit_s=1.5)
    screen = Screen(Console(width=100, record=True, highlight=False))

    code = await run_demo(options, screen, processes_with(miscounted="0.01"))

    text = screen.console.export_text()
    assert code == 1
    assert "NOT PROVEN" in text
    assert "The books differ by 0.01 USD." in text
    report = json.loads((tmp_path / "demo-report.json").read_text())
    assert report["difference"] == {"USD": "0.01"}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_reports_it_and_stops_its_processes(
    options: Options, tmp_path: Path, stop: signal.Signals
) -> None:
    program = (
        "import sys; from pathlib import Path; from rehearsal.__main__ import play;"
        "from rehearsal.console import Screen; from rehearsal.demo import Options;"
        "from tests.rehearsal.test_demo import processes_with;"
        f"options = Options(Path({str(options.data_dir)!r}), {options.gateway_port}, {options.sandbox_port},"
        " 30.0, 1.0, 100, 8, 1, True);"
        "sys.exit(play(options, Screen(), processes_with('0.00')))"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if line.startswith(("Replaying", "demo:")))
        pids = json.loads((tmp_path / "data/demo/pids.json").read_text())
        demo.send_signal(stop)
        rest, errors = demo.communicate(timeout=PATIENCE_S)

    assert "Replaying" in line
    assert (demo.returncode, errors) == (130, "")
    assert "demo: interrupted before the proof" in rest
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def assert_is_a_report(report: dict[str, object]) -> None:
    """Check the fields and types of demo-report.json."""
    numbers = {name: report[name] for name in ("donations", "duration_s", "donations_per_s")}
    assert all(isinstance(number, int | float) and number > 0 for number in numbers.values())
    assert report["stack"] == "embedded"
    assert set(report["freshness_ms"]) == {"p50", "p99"}  # type: ignore[call-overload]
    assert set(report["books"]) == {"sandbox", "ledger", "totals", "pledges"}  # type: ignore[call-overload]
    for book in report["books"].values():  # type: ignore[attr-defined]
        assert all(isinstance(value, str) and value[-3] == "." for value in book.values())
    assert set(report["peak_rss_mb"]) == {"embedded", "sandbox", "rehearsal"}  # type: ignore[call-overload]


def command(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ATAA_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", "demo", *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_bad_recording_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("minute_utc,viewers,donations_total,raised_usd_total\n2019,1,x,2\n")

    done = command(tmp_path, "--recording", "bad.csv")

    assert done.returncode == 1
    assert done.stdout.strip().splitlines() == [
        "demo: bad.csv line 2, column minute_utc: '2019' is not a UTC minute"
    ]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_invalid_setting_is_named(tmp_path: Path) -> None:
    done = command(tmp_path, ATAA_GATEWAY_PORT="eighty")

    assert done.returncode == 2
    assert "ATAA_GATEWAY_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_faults_that_are_not_a_json_object_are_refused(tmp_path: Path) -> None:
    done = command(tmp_path, "--faults", "[1]")

    assert done.returncode == 2
    assert "--faults" in done.stderr
