"""One set of real servers a test run, ports nobody else has, the longest first; recoveries are printed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import engines, scheduling
from tests.ports import FOLDER, free_port

# An example may take as long as a busy machine takes: no test of ours is about that.
# What decides whether work lands tries the same examples each time; everybody else's runs look for new ones.
settings.register_profile(
    "ataa",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("ataa")


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the folder in which its workers leave word of what they started."""
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="ataa-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and (folder := os.environ.pop(FOLDER, None)):
        engines.stop_all(Path(folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=scheduling.place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Who runs what, and when."""
    return scheduling.GroupedScheduling(config, log)


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """Instead of pytest-asyncio's, whose ports the system may give to another in the meantime."""
    return free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """Instead of pytest-asyncio's, likewise."""
    return free_port()


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
