"""The results file: its form, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import results
from bench.results import BadResults, Measured, Results, check, read
from bench.specs import GROUPS, SPECS, names_of


def example() -> Results:
    found = Results("2 cores", "abc1234", "quick", {"load_average_before": 1.5})
    found.add(Measured("fanout", 20.0, 8.0, {"clients": 1000}))
    found.add(Measured("reads", 12_345.678, 30_000.0, {"p50_ms": 2.0, "p99_ms": 9.87654}))
    found.skip("intake", "no\n  port")
    return found


def test_figure_has_value_unit_aim_floor_ratio_and_percentiles(tmp_path: Path) -> None:
    example().write(tmp_path / "latest.json")
    reads = read(tmp_path / "latest.json")["figures"]["reads"]
    assert reads["value"] == 12_346
    assert (reads["unit"], reads["aim"], reads["floor"]) == ("reads/s", 25_000, 30_000)
    assert reads["ratio"] == pytest.approx(0.4115)
    assert (reads["p50_ms"], reads["p99_ms"], reads["reached"]) == (2.0, 9.877, False)


def test_figures_are_in_the_order_of_importance_and_skips_keep_their_reason() -> None:
    written = example().as_json()
    assert list(written["figures"]) == ["reads", "fanout"]
    assert written["skipped"] == {"intake": "no port"}


def test_aim_is_a_maximum_where_lower_is_better() -> None:
    assert SPECS["fanout"].is_reached(17.9)
    assert not SPECS["fanout"].is_reached(18.1)
    assert SPECS["reads"].is_reached(25_000)
    assert not SPECS["reads"].is_reached(24_999)


def test_measured_figure_is_not_skipped_whichever_comes_first() -> None:
    found = example()
    found.skip("reads", "later trouble")
    found.add(Measured("intake", 1.0))
    assert found.as_json()["skipped"] == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("machine",), None),
        (("figures", "reads", "value"), None),
        (("figures", "reads", "value"), math.inf),
        (("figures", "reads", "value"), True),
        (("figures", "reads", "ratio"), "0.4"),
        (("figures", "reads", "unit"), 3),
        (("skipped", "intake"), ""),
    ],
)
def test_results_of_another_form_are_refused(path: tuple[str, ...], value: Any) -> None:
    found = copy.deepcopy(example().as_json())
    check(found)
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(BadResults, match=path[0]):
        check(found)


def test_committed_results_have_the_form_and_name_every_figure() -> None:
    found = read(results.LATEST)
    assert found["figures"].keys() | found["skipped"].keys() == set(SPECS)
    assert json.loads(results.LATEST.read_text()) == found


def test_every_group_has_figures_and_every_figure_a_group() -> None:
    assert names_of(GROUPS) == list(SPECS)
    assert all(names_of([group]) for group in GROUPS)
