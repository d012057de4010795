"""Finding a running stack for a demo."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rehearsal.installation import CannotPrepare
from rehearsal.running_stack import RunningStack, find_running
from stack import processes
from stack.layout import lay_out, ports_from
from stack.process_specs import ProcessSpec
from stack.settings import SERVICES

Start = Callable[..., None]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts idle processes under the names of a stack's."""
    directory = tmp_path / "stack"
    lay_out(directory, tmp_path, ports_from(26_000), {})
    run = directory / "run"

    def start_named(*names: str) -> None:
        for name in names:
            command = (sys.executable, "-c", "import time; time.sleep(60)")
            processes.start(
                ProcessSpec(name, command, os.environ, ""), run, directory / "logs" / f"{name}.log"
            )

    yield start_named
    for name in (*SERVICES, "sandbox"):
        processes.stop(name, run, signal.SIGKILL)


def test_nothing_is_found_where_no_stack_runs(tmp_path: Path, start: Start) -> None:
    assert find_running(tmp_path) is None


def test_running_stack_is_found_and_gets_its_own_drive(tmp_path: Path, start: Start) -> None:
    start(*SERVICES, "sandbox")
    installation = find_running(tmp_path)
    assert installation is not None
    assert installation.shared
    assert installation.gateway_url == "http://127.0.0.1:26000"
    assert installation.sandbox_url == "http://127.0.0.1:26012"
    assert installation.drive.startswith("winter-")
    assert RunningStack(installation.directory).measure()["payments"] > 0


def test_partly_running_stack_is_refused_with_the_stopped_services(tmp_path: Path, start: Start) -> None:
    start("pledges", "payments", "leaderboard", "gateway", "sandbox")
    with pytest.raises(CannotPrepare, match="without notify; make stack starts"):
        find_running(tmp_path)


def test_stack_without_the_sandbox_is_refused(tmp_path: Path, start: Start) -> None:
    start(*SERVICES)
    with pytest.raises(CannotPrepare, match="uses a Stripe account"):
        find_running(tmp_path)
