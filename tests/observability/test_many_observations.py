"""Many observations at once are the same as single ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from backbone.telemetry import observe_all


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0, 1.5, 2.0, 7.5, 100.0])))
def test_observations_are_counted_in_their_buckets(values: list[float]) -> None:
    written = []
    for at_once in (False, True):
        registry = CollectorRegistry()
        histogram = Histogram("one", "Test.", ["a"], buckets=(0.5, 1, 2, 5), registry=registry).labels("b")
        if at_once:
            observe_all(histogram, values)
        else:
            for value in values:
                histogram.observe(value)
        text = generate_latest(registry).decode().splitlines()
        written.append([line for line in text if "_created" not in line])
    assert written[0] == written[1]
