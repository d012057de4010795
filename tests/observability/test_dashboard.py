"""The dashboards: the committed files match their code, and their queries use existing metrics."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.observability.programs import need_dashboard_library

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "grafana"


@pytest.fixture(params=["surge-overview", "payments-ledger"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def panels(name: str) -> list[dict[str, Any]]:
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def test_committed_dashboard_matches_its_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_dashboard_library()
    monkeypatch.syspath_prepend(str(FOLDER))
    page = importlib.import_module(name.replace("-", "_")).PAGE
    assert page.file == FOLDER / f"{name}.json"
    assert page.file.read_text(encoding="utf-8") == page.text()


def test_every_panel_has_a_unit_a_description_and_its_own_place(panels: list[dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_queries_and_rules_name_existing_metrics(panels: list[dict[str, Any]]) -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("backbone", "services", "gateway")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = set(re.findall(r'"(ataa_[a-z0-9_]+)"', source))
    rules = (ROOT / "deploy" / "prometheus" / "alerts.rules.yml").read_text(encoding="utf-8")
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    named = set(re.findall(r"\bataa_[a-z0-9_]+", "\n".join([*asked, *re.findall(r"expr: (.*)", rules)])))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= known
