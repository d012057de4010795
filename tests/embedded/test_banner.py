"""The banner and the log format, with and without a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from embedded.banner import Running, facts, print_banner
from tests.journeys.embedded_system import ROOT, EmbeddedSystem
from tests.waiting import PATIENCE_S

HERE = Running("http://127.0.0.1:8000", Path(".ataa"), "http://127.0.0.1:8012", livemode=False)


def test_banner_shows_addresses_keys_and_the_sandbox() -> None:
    shown = facts(HERE)
    assert shown["API"] == "http://127.0.0.1:8000/docs"
    assert shown["Overlay"] == "http://127.0.0.1:8000/overlay/{drive}"
    assert shown["Donate page"] == "http://127.0.0.1:8000/donate/{drive}"
    assert shown["Keys"] == ".ataa/keys.json"
    assert shown["Stripe"].startswith("the sandbox at http://127.0.0.1:8012")


@pytest.mark.parametrize(("livemode", "text"), [(True, "real cards are charged"), (False, "test cards only")])
def test_banner_shows_whether_real_cards_are_charged(livemode: bool, text: str) -> None:
    running = Running("http://127.0.0.1:8000", Path(".ataa"), None, livemode=livemode)
    assert text in facts(running)["Stripe"]


def test_nothing_is_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_banner(HERE)
    assert capsys.readouterr().out == ""


def test_terminal_shows_the_banner_and_readable_logs(tmp_path: Path) -> None:
    system = EmbeddedSystem(tmp_path)
    output = on_terminal(system.environment() | {"TERM": "dumb"}, "live.bootstrapped")
    assert "/overlay/{drive}" in output
    assert "keys.json" in output
    logged = next(line for line in output.splitlines() if "live.bootstrapped" in line)
    assert not logged.startswith("{")


def test_json_logs_can_be_set_on_a_terminal(tmp_path: Path) -> None:
    environment = EmbeddedSystem(tmp_path).environment() | {"TERM": "dumb", "ATAA_LOG_FORMAT": "json"}
    output = on_terminal(environment, "live.bootstrapped")
    logged = next(line for line in output.splitlines() if "live.bootstrapped" in line)
    assert json.loads(logged)["event"] == "live.bootstrapped"


def on_terminal(environment: dict[str, str], until: str) -> str:
    """The output of the embedded run on a pseudo-terminal, up to a line that contains `until`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "embedded"], environment)
    output = b""
    deadline = time.monotonic() + PATIENCE_S
    try:
        while until.encode() not in output or not output.endswith(b"\n"):
            ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
            assert ready, f"nothing more than {output.decode()!r}"
            output += os.read(terminal, 65536)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    return output.decode()
