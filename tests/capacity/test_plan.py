"""The plan's arithmetic, and that docs/capacity.md is what the program prints."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from capacity.document import DOCUMENT, insert, render
from capacity.inputs import FILE, Inputs, Load, load, parse
from capacity.measurement import NoStack, Reading, per_donation
from capacity.plan import backlog, bottleneck, ceilings, plan_donations, plan_readers


def with_changes(**tables: dict[str, float]) -> Inputs:
    """The inputs of the repository with some values replaced."""
    found: dict[str, Any] = tomllib.loads(FILE.read_text())
    for table, values in tables.items():
        assert values.keys() <= found[table].keys()
        found[table] |= values
    return parse(found)


def test_document_is_what_the_program_prints() -> None:
    text = DOCUMENT.read_text()
    assert insert(text, render(load())) == text, "run python -m capacity document"


def test_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no part between"):
        insert("# Planning", "")


def test_replicas_are_the_cores_over_the_planned_use_of_a_core() -> None:
    inputs = with_changes(cpu_ms_a_donation={"payments": 6.0, "notify": 0.01}, limits={"utilisation": 0.5})
    plan = plan_donations(inputs, Load("x", 1000, 15, 2000, 10, 10**6))
    found = {one.service: (round(one.cores, 6), one.replicas) for one in plan.processes}
    assert found["payments"] == (6.0, 12)  # 1,000 x 6 ms = 6 cores, half used
    assert found["notify"] == (0.01, 2)  # never fewer than two


def test_database_and_log_grow_with_the_donations() -> None:
    inputs = with_changes(
        bytes_a_donation={
            "pledges": 2000,
            "payments": 7000,
            "leaderboard": 800,
            "notify": 200,
            "kafka": 1000,
        },
        limits={"replication": 3},
    )
    plan = plan_donations(inputs, Load("x", 10, 15, 20, 10, 1_000_000))
    assert (plan.database_gb, plan.kafka_gb) == (10.0, 3.0)


def test_partitions_are_as_many_as_the_largest_consumer_needs() -> None:
    small = plan_donations(load(), Load("x", 1, 15, 2, 10, 10))
    large = plan_donations(load(), Load("x", 10_000, 15, 2, 10, 10))
    assert small.partitions == 12
    assert large.partitions == max(one.replicas for one in large.processes if one.service != "gateway")


def test_lowest_bound_inside_ataa_is_the_bottleneck() -> None:
    slow_relay = with_changes(one_process_a_second={"relay_events": 10})
    assert "relay" in bottleneck(slow_relay, one_drive=True).name
    slow_tally = with_changes(one_process_a_second={"leaderboard_events": 10})
    assert "partition of one drive" in bottleneck(slow_tally, one_drive=True).name
    assert bottleneck(slow_tally, one_drive=False).per_s == pytest.approx(12 * 10 / 3.08)
    slow_stripe = with_changes(limits={"stripe_requests_a_second": 0.1})
    assert "Stripe" not in bottleneck(slow_stripe, one_drive=True).name  # pledges are accepted anyway
    rates = [one.per_s for one in ceilings(load(), one_drive=True)]
    assert rates == sorted(rates)


def test_cheaper_donations_cost_less_money() -> None:
    of = load().loads[1]
    cheaper = with_changes(cpu_ms_a_donation={"payments": 1.0, "postgres": 1.0})
    assert plan_donations(cheaper, of).dollars_an_hour < plan_donations(load(), of).dollars_an_hour
    assert plan_donations(cheaper, of).bottleneck.per_s > plan_donations(load(), of).bottleneck.per_s


def test_backlog_waits_for_what_comes_faster_than_it_is_done() -> None:
    assert backlog(40, 900, 25) == (13_500, 9.0)  # SURGE: ten minutes to drain at Stripe's default
    assert backlog(10, 900, 25) == (0.0, 0.0)


def test_readers_cost_the_gateways_nothing_and_the_edge_by_the_poll() -> None:
    inputs = with_changes(readers={"poll_s": 5, "edge_cpu_us_a_read": 20, "not_modified_share": 0})
    few, many = (plan_readers(inputs, audience) for audience in inputs.audiences)
    assert many.reads_s == 1_800_000
    assert many.edge_cores == pytest.approx(36)
    assert few.origin_reads_s == many.origin_reads_s
    assert many.traffic_dollars_an_hour < many.edge_dollars_an_hour


def reading(donations: int, rows: int, cpu_s: float) -> Reading:
    """A reading of a stack whose payments grow by `rows` bytes and use `cpu_s`."""
    sizes = {"payments": rows}
    return Reading(donations, sizes, sizes, {"payments.facts": rows}, 10 * rows, rows, {"payments": cpu_s})


def test_measured_costs_are_the_differences_over_the_donations() -> None:
    found = per_donation(reading(10, 5_000, 1.0), reading(110, 25_000, 1.5))
    assert found["donations"] == 100
    assert found["row_bytes"] == found["index_bytes"] == {"payments": 200.0}
    assert (found["wal_bytes"], found["kafka_bytes"], found["cpu_ms"]) == (2000, 200, {"payments": 5.0})
    with pytest.raises(NoStack, match="no donation"):
        per_donation(reading(10, 1, 1.0), reading(10, 1, 1.0))
