"""The order in which the workers of a test run take the tests: the longest first, so that they end together.

The tests of a file run in one worker, with the fixtures of their module. The tests of a file in APART share
nothing and are distributed one by one. Files that start whole stacks run one after the other, so that at
most two stacks run at once on two cores.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

APART: Final = frozenset(
    {
        "tests/backbone/test_bus_kafka.py",
        "tests/backbone/test_hanging_connections.py",
        "tests/backbone/test_replicas.py",
        "tests/backbone/test_transient.py",
        "tests/journeys/test_changes_without_webhooks.py",
        "tests/journeys/test_crashes.py",
        "tests/journeys/test_drive_changes_and_cancellations.py",
        "tests/rehearsal/test_demo.py",
        "tests/simulation/test_seeds.py",
        "tests/stores/test_hanging_database.py",
        "tests/stores/test_plans.py",
    }
)

TOGETHER: Final = {
    "tests/stack/test_faults.py": "one stack",
    "tests/stack/test_stack.py": "one stack",
    "tests/stack/test_replicas.py": "the other stack",
    "tests/stack/test_external_servers.py": "the other stack",
    "tests/edge/test_nchan.py": "one system behind the edge",
    "tests/edge/test_real_gateway.py": "one system behind the edge",
}

LONGEST: Final = (
    "tests/stack/test_faults.py",
    "tests/stack/test_replicas.py",
    "tests/stack/test_stack.py",
    "tests/stack/test_external_servers.py",
    "tests/gateway/test_overlays_in_browser.py",
    "tests/simulation/test_seeds.py",
    "tests/backbone/test_hanging_connections.py",
    "tests/gateway/test_pages_in_browser.py",
    "tests/gateway/test_embed_in_browser.py",
    "tests/gateway/test_embedded_checkout_in_browser.py",
    "tests/gateway/test_donate_in_browser.py",
    "tests/gateway/test_form_screens_in_browser.py",
    "tests/gateway/test_donors_return_in_browser.py",
    "tests/gateway/test_donate_in_firefox.py",
    "tests/stores/test_plans.py",
    "tests/backbone/test_replicas.py",
    "tests/backbone/test_kafka_security.py",
    "tests/backbone/test_bus.py",
    "tests/backbone/test_bus_kafka.py",
    "tests/stores/test_hanging_database.py",
    "tests/backbone/test_transient.py",
    "tests/backbone/test_periodic.py",
    "tests/journeys/test_demo.py",
    "tests/journeys/test_crashes.py",
    "tests/journeys/test_drive_changes_and_cancellations.py",
    "tests/journeys/test_changes_without_webhooks.py",
    "tests/journeys/test_api_guide.py",
    "tests/bench/test_reads_run.py",
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
"""Files with long tests, in the order they are started; `make test ARGS=--durations=30` lists long tests."""


_PLACES: Final = {file: place for place, file in enumerate(LONGEST)}


def place(item: pytest.Item) -> int:
    """A test's place in the order, by its file; files not in LONGEST come last, as collected."""
    return _PLACES.get(file_of(item.nodeid), len(LONGEST))


def file_of(nodeid: str) -> str:
    """The file of a test."""
    return nodeid.partition("::")[0]


class GroupedScheduling(LoadScopeScheduling):
    """Distribute files, and the tests of some files one by one, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would start the files with the most tests first

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return nodeid if file in APART else TOGETHER.get(file, file)
