"""A failed start reports its cause in one line; a stop lets streams and requests end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forked_process import ForkedProcess
from tests.journeys.embedded_system import ROOT, EmbeddedSystem, live_frames, running
from tests.waiting import PATIENCE_S


@dataclass
class FinishedProcess:
    """The exit status and the output of a start that failed."""

    returncode: int
    output: str


def start(folder: Path, **settings: str) -> FinishedProcess:
    """Try to start the embedded run, from a process with the modules already imported."""
    log = folder / "said"
    log.unlink(missing_ok=True)
    process = ForkedProcess("embedded", [], EmbeddedSystem(folder).environment() | settings, log)
    return FinishedProcess(process.wait(PATIENCE_S), log.read_text())


def start_cold(folder: Path, **settings: str) -> FinishedProcess:
    """Try to start the embedded run with `python -m embedded`."""
    ended = subprocess.run(
        [sys.executable, "-m", "embedded"],
        cwd=ROOT,
        env=EmbeddedSystem(folder).environment() | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return FinishedProcess(ended.returncode, ended.stdout)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ATAA_GATEWAY_PORT", "eighty"),
        ("ATAA_GATEWAY_PORT", "70000"),
        ("ATAA_SANDBOX_PORT", "-1"),
        ("ATAA_ADMIN_KEY", "too-short"),
        ("ATAA_ADMIN_KEY", "ak_admin_short"),
        ("ATAA_LOG_LEVEL", "loud"),
        ("ATAA_STRIPE_WEBHOOK_SECRETS", ""),
        ("ATAA_STRIPE_BACKFILL_S", "often"),
        ("ATAA_DATABASE_URL_PLEDGES", "mysql://nowhere"),
    ],
)
def test_invalid_setting_is_named_in_one_line_at_startup(tmp_path: Path, setting: str, value: str) -> None:
    ended = start(tmp_path, **{setting: value})
    assert ended.returncode == 2, ended.output
    assert len(ended.output.strip().splitlines()) == 1, ended.output
    assert setting in ended.output


def test_port_in_use_is_named_at_startup(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = start_cold(tmp_path, ATAA_GATEWAY_PORT=port)
    assert ended.returncode == 2
    assert len(ended.output.strip().splitlines()) == 1, ended.output
    assert port in ended.output
    assert "ATAA_GATEWAY_PORT" in ended.output


def test_one_port_for_gateway_and_sandbox_is_refused(tmp_path: Path) -> None:
    port = EmbeddedSystem(tmp_path).environment()["ATAA_GATEWAY_PORT"]
    without_stripe = dict.fromkeys(
        ("ATAA_STRIPE_API_BASE", "ATAA_STRIPE_API_KEY", "ATAA_STRIPE_WEBHOOK_SECRETS"), ""
    )
    ended = start(tmp_path, ATAA_GATEWAY_PORT=port, ATAA_SANDBOX_PORT=port, **without_stripe)
    assert ended.returncode == 2, ended.output
    assert len(ended.output.strip().splitlines()) == 1, ended.output
    assert "ATAA_SANDBOX_PORT" in ended.output


def test_unwritable_data_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for folder in (tmp_path / "file", Path("/proc/ataa"), Path("/dev/full/ataa")):
        ended = start(tmp_path, ATAA_DATA_DIR=str(folder))
        assert ended.returncode == 2
        assert len(ended.output.strip().splitlines()) == 1, ended.output
        assert "ATAA_DATA_DIR" in ended.output


def test_full_data_directory_is_reported(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root: a full disk is not tested here")
    try:
        ended = start(tmp_path, ATAA_DATA_DIR=str(mount / "data"))
    finally:
        subprocess.run(["umount", str(mount)], check=False)
    assert ended.returncode == 2
    assert "No space left" in ended.output


async def test_second_process_on_one_data_directory_reports_the_owners_pid(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        ended = start(tmp_path, ATAA_DATA_DIR=str(tmp_path / "ataa" / "data"))
        assert ended.returncode == 2
        assert system.embedded is not None
        assert str(system.embedded.pid) in ended.output


async def test_stop_ends_live_streams_and_restart_keeps_the_data(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("drained")
        await system.donate("drained")
        await system.wait_for_raised("drained", "25.00")
        frames: asyncio.Queue[tuple[str, str, object]] = asyncio.Queue()
        stream = asyncio.create_task(live_frames(system, "drained", frames))
        assert (await frames.get())[0] == "totals"
        process = system.embedded
        assert process is not None
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(stream, PATIENCE_S)
        seen = [frames.get_nowait()[0] for _ in range(frames.qsize())]
        assert seen[-1] == "drain"
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        system.embedded = None
        await system.start()
        await system.wait_for_raised("drained", "25.00")
        await system.donate("drained")
        await system.wait_for_raised("drained", "50.00")
        assert "Traceback" not in system.log
