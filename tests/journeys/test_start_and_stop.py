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

from tests.journeys.system import ROOT, System, live_frames, running
from tests.waiting import PATIENCE_S
from tests.warm import WarmProcess


@dataclass
class Ended:
    """The exit status and the output of a start that failed."""

    returncode: int
    said: str


def start(folder: Path, **settings: str) -> Ended:
    """Try to start the embedded run, from a process with the modules already imported."""
    log = folder / "said"
    log.unlink(missing_ok=True)
    process = WarmProcess("embedded", [], System(folder).environment() | settings, log)
    return Ended(process.wait(PATIENCE_S), log.read_text())


def start_cold(folder: Path, **settings: str) -> Ended:
    """Try to start the embedded run with `python -m embedded`."""
    ended = subprocess.run(
        [sys.executable, "-m", "embedded"],
        cwd=ROOT,
        env=System(folder).environment() | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout)


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
def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(
    tmp_path: Path, setting: str, value: str
) -> None:
    ended = start(tmp_path, **{setting: value})
    assert ended.returncode == 2, ended.said
    assert len(ended.said.strip().splitlines()) == 1, ended.said
    assert setting in ended.said


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = start_cold(tmp_path, ATAA_GATEWAY_PORT=port)
    assert ended.returncode == 2
    assert len(ended.said.strip().splitlines()) == 1, ended.said
    assert port in ended.said
    assert "ATAA_GATEWAY_PORT" in ended.said


def test_one_port_for_gateway_and_sandbox_is_refused(tmp_path: Path) -> None:
    port = System(tmp_path).environment()["ATAA_GATEWAY_PORT"]
    without_stripe = dict.fromkeys(
        ("ATAA_STRIPE_API_BASE", "ATAA_STRIPE_API_KEY", "ATAA_STRIPE_WEBHOOK_SECRETS"), ""
    )
    ended = start(tmp_path, ATAA_GATEWAY_PORT=port, ATAA_SANDBOX_PORT=port, **without_stripe)
    assert ended.returncode == 2, ended.said
    assert len(ended.said.strip().splitlines()) == 1, ended.said
    assert "ATAA_SANDBOX_PORT" in ended.said


def test_a_data_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for folder in (tmp_path / "file", Path("/proc/ataa"), Path("/dev/full/ataa")):
        ended = start(tmp_path, ATAA_DATA_DIR=str(folder))
        assert ended.returncode == 2
        assert len(ended.said.strip().splitlines()) == 1, ended.said
        assert "ATAA_DATA_DIR" in ended.said


def test_a_full_data_directory_says_so(tmp_path: Path) -> None:
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
    assert "No space left" in ended.said


async def test_a_second_process_on_the_same_data_is_told_who_has_it(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        ended = start(tmp_path, ATAA_DATA_DIR=str(tmp_path / "ataa" / "data"))
        assert ended.returncode == 2
        assert system.embedded is not None
        assert str(system.embedded.pid) in ended.said


async def test_a_stop_drains_the_streams_and_a_restart_keeps_the_data(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("drained")
        await system.give("drained")
        await system.raised("drained", "25.00")
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
        await system.raised("drained", "25.00")
        await system.give("drained")
        await system.raised("drained", "50.00")
        assert "Traceback" not in system.log
