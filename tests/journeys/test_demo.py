"""A short demo whose embedded process is killed with -9: it continues, and the books agree to the cent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio import create_subprocess_exec
from pathlib import Path
from typing import Any

from tests.journeys.embedded_system import ROOT
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until


async def test_demo_survives_a_kill_of_the_embedded_process(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    environment |= {
        "ATAA_DATA_DIR": str(tmp_path),
        "ATAA_GATEWAY_PORT": str(free_port()),
        "ATAA_SANDBOX_PORT": str(free_port()),
        "PYTHONPATH": str(ROOT),
    }
    with (tmp_path / "said").open("wb") as log:
        demo = await create_subprocess_exec(
            *(sys.executable, "-m", "rehearsal", "demo", "--exit"),
            *("--seconds", "6", "--rush-seconds", "4", "--gifts", "300"),
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        first = await until(lambda: _embedded(tmp_path), 2 * PATIENCE_S)
        await until(lambda: demo.returncode is not None or _donation_count(environment) > 20, 2 * PATIENCE_S)
        os.kill(first, signal.SIGKILL)
        await asyncio.wait_for(demo.wait(), 4 * PATIENCE_S)
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()
        output = (tmp_path / "said").read_text()
        print(output)  # noqa: T201 - shown if the test fails
    assert demo.returncode == 0
    assert _embedded(tmp_path) != first
    report = json.loads((tmp_path / "demo-report.json").read_text())
    assert report["stack"] == "embedded"
    assert report["difference"] == {"USD": "0.00"}
    assert report["donations"] >= 300
    assert len({json.dumps(book) for book in report["books"].values()}) == 1
    assert set(report["books"]) == {"sandbox", "ledger", "totals", "pledges"}


def _embedded(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads((folder / "demo" / "pids.json").read_text())["embedded"])
    return None


def _donation_count(environment: dict[str, str]) -> int:
    import urllib.request

    url = f"http://127.0.0.1:{environment['ATAA_GATEWAY_PORT']}/v1/drives/winter/totals"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        totals: dict[str, Any] = json.load(answer)
        return int(totals["donations"])
    return 0
