"""The dashboard: the committed file matches its code, and its queries use existing metrics."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.observability.programs import need_dashboard_library

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"


def dashboard() -> Any:
    return json.loads((FOLDER / "surge-overview.json").read_text(encoding="utf-8"))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def code() -> ModuleType:
    need_dashboard_library()
    spec = importlib.util.spec_from_file_location("surge_overview", FOLDER / "surge_overview.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_committed_dashboard_matches_its_code(code: ModuleType) -> None:
    assert (FOLDER / "surge-overview.json").read_text(encoding="utf-8") == code.text()


def test_every_panel_has_a_unit_a_description_and_its_own_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_queries_and_rules_name_existing_metrics() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("backbone", "services", "gateway")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = set(re.findall(r'"(ataa_[a-z0-9_]+)"', source))
    rules = (ROOT / "deploy" / "prometheus" / "alerts.rules.yml").read_text(encoding="utf-8")
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    named = set(re.findall(r"\bataa_[a-z0-9_]+", "\n".join([*asked, *re.findall(r"expr: (.*)", rules)])))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= known
