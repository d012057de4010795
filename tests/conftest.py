"""One set of real servers a test run, and the recoveries measured in it, printed at its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import real


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the folder in which its workers leave word of what they started."""
    if not hasattr(config, "workerinput"):
        os.environ[real.FOLDER] = tempfile.mkdtemp(prefix="ataa-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and (folder := os.environ.pop(real.FOLDER, None)):
        real.stop_all(Path(folder))


Recovered = Callable[[str], None]
"""Says what recovered from what, and how long that took."""


@pytest.fixture
def recovered(record_property: Callable[[str, object], None]) -> Recovered:
    """What it is told is printed when the run ends, whichever worker it was told in."""
    return lambda words: record_property("recovery", words)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    for report in reports:
        for name, words in getattr(report, "user_properties", ()):
            if name == "recovery" and report.when == "call":
                terminalreporter.write_line(f"[recovery] {words}")
