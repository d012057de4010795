"""The order in which a run's workers take the tests: the longest first, so that none ends alone.

A file's tests stay together in one worker, with the fixtures of their module; those of a file in APART,
which share nothing, go to whoever is free. Files of whole stacks follow one another: no more than two
stacks run at once on two cores.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

APART: Final = frozenset(
    {
        "tests/backbone/test_bus_kafka.py",
        "tests/backbone/test_replicas.py",
        "tests/journeys/test_crashes.py",
        "tests/journeys/test_drive_changes_and_cancellations.py",
        "tests/rehearsal/test_demo.py",
    }
)

TOGETHER: Final = {
    "tests/stack/test_faults.py": "one stack",
    "tests/stack/test_whole.py": "one stack",
    "tests/stack/test_replicas.py": "the other stack",
    "tests/stack/test_somebodys.py": "the other stack",
}

LONGEST: Final = (
    "tests/stack/test_faults.py",
    "tests/stack/test_replicas.py",
    "tests/stack/test_whole.py",
    "tests/stack/test_somebodys.py",
    "tests/gateway/test_pages_in_browser.py",
    "tests/backbone/test_replicas.py",
    "tests/backbone/test_hanging_connections.py",
    "tests/backbone/test_kafka_security.py",
    "tests/backbone/test_bus.py",
    "tests/backbone/test_bus_kafka.py",
    "tests/stores/test_hanging_database.py",
    "tests/backbone/test_transient.py",
    "tests/backbone/test_periodic.py",
    "tests/journeys/test_demo.py",
    "tests/journeys/test_crashes.py",
    "tests/journeys/test_drive_changes_and_cancellations.py",
    "tests/journeys/test_faults.py",
    "tests/journeys/test_start_and_stop.py",
    "tests/journeys/test_readme.py",
    "tests/payments/test_faults.py",
    "tests/payments/checkout/test_expiry.py",
    "tests/payments/checkout/test_worker.py",
    "tests/payments/recording/test_any_order.py",
    "tests/observability/test_prometheus.py",
    "tests/pledges/test_cancelling.py",
    "tests/rehearsal/test_demo.py",
    "tests/backbone/test_process.py",
    "tests/payments/test_refunds.py",
)
"""Files whose tests, or one of whose tests, take long; `make test ARGS=--durations=30` shows which do."""


_PLACES: Final = {file: place for place, file in enumerate(LONGEST)}


def place(item: pytest.Item) -> int:
    """A test's place in the order, by its file; what is not long comes last, as it was collected."""
    return _PLACES.get(file_of(item.nodeid), len(LONGEST))


def file_of(nodeid: str) -> str:
    """The file a test is in."""
    return nodeid.partition("::")[0]


class GroupedScheduling(LoadScopeScheduling):
    """Hands out files, and the tests of some files one by one, in the order they were collected in."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would put the files with the most tests first

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return nodeid if file in APART else TOGETHER.get(file, file)
