"""CPU by library, from the samples of py-spy."""

from __future__ import annotations

import pytest

from bench.flame import Flames, by_library, shares

SAMPLES = """\
<module> (bench/single_service.py:1);run (uvloop/loop.pyx:5);push (gateway/live/connection.py:9) 3
<module> (bench/single_service.py:1);execute (site-packages/sqlalchemy/engine/base.py:7) 5
<module> (bench/single_service.py:1);loads (json/decoder.py:3) 2

broken line
"""


def test_samples_count_for_the_package_of_the_innermost_frame() -> None:
    assert by_library(SAMPLES) == {"ataa": 3, "sqlalchemy": 5, "json": 2}


@pytest.mark.parametrize(
    ("frame", "package"),
    [
        ("run (/opt/venv/lib/python3.11/site-packages/uvloop/__init__.py:92)", "uvloop"),
        ("_run_once (/usr/lib/python3.11/asyncio/base_events.py:1900)", "asyncio"),
        ("loads (/usr/lib/python3.11/selectors.py:3)", "selectors"),
        ("poll (/srv/ataa/backbone/bus/sqlite.py:12)", "ataa"),
        ("native", "python"),
    ],
)
def test_package_of_a_frame(frame: str, package: str) -> None:
    assert by_library(f"{frame} 1") == {package: 1}


def test_shares_name_the_largest_first() -> None:
    assert shares(by_library(SAMPLES), 2) == "sqlalchemy 50 %, ataa 30 %"


def test_without_py_spy_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ATAA_BENCH_PYSPY", raising=False)
    flames = Flames(asked=True)
    assert flames.skipped == "py-spy is not installed"
    with flames.of("reads", {"gateway": 1}) as found:
        pass
    assert found == {}
