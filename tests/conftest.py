"""Shared servers and ports of a test run, the order of its files, and a summary of measured recoveries."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import engines, scheduling
from tests.ports import FOLDER, free_port

# No test measures how long a Hypothesis example takes, so a busy machine may take any time.
# CI tries the same examples each time; other runs look for new ones.
settings.register_profile(
    "ataa",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("ataa")

# The machine of a test run is loaded by the run itself: without this, features would give way in any test.
# Tests of the shedding ladder give the gateway readings of their own, or another value.
os.environ.setdefault("ATAA_OVERLOAD_LAG_S", "60")


MEMORY_NEEDED = 4 * 2**30
"""Bytes. The servers of a whole run have some hundred megabytes at a time."""


def pytest_configure(config: pytest.Config) -> None:
    """Create the folder in which the workers of this run record the servers they started."""
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="ataa-tests-", dir=_memory())


def _memory() -> str | None:
    """A file system in memory with room for the servers' data; None where there is none.

    Tests create and drop hundreds of databases. On a disk, other tests' statements waited for seconds then.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a new folder in it
    with suppress(OSError):
        if shutil.disk_usage(memory).free >= MEMORY_NEEDED and os.access(memory, os.W_OK):
            return str(memory)
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and (folder := os.environ.pop(FOLDER, None)):
        engines.stop_all(Path(folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=scheduling.place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Hand out files in the order of `scheduling`."""
    return scheduling.GroupedScheduling(config, log)


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """Replace pytest-asyncio's, whose ports the system may assign to another process in the meantime."""
    return free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """Replace pytest-asyncio's, for the same reason."""
    return free_port()


Recovered = Callable[[str], None]
"""Reports what recovered from what, and how long it took."""


@pytest.fixture
def recovered(record_property: Callable[[str, object], None]) -> Recovered:
    """Report a line that is printed when the run ends, whichever worker reported it."""
    return lambda line: record_property("recovery", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    for report in reports:
        for name, line in getattr(report, "user_properties", ()):
            if name == "recovery" and report.when == "call":
                terminalreporter.write_line(f"[recovery] {line}")
