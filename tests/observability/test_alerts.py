"""The alert rules: valid, each with a firing and a quiet case, an action and a runbook section."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.observability.programs import need

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = (FOLDER / "alerts.rules.yml").read_text(encoding="utf-8")
TESTS = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
METRICS = Path(__file__).parents[2] / "docs" / "operations" / "metrics.md"


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)


def test_alert_rules_are_valid_and_pass_their_tests() -> None:
    promtool = need("promtool")
    checked = subprocess.run(
        [promtool, "check", "rules", "alerts.rules.yml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_firing_and_a_quiet_case() -> None:
    assert re.findall(r"- name: (\w+) fires$", TESTS, re.MULTILINE) == alerts()
    assert re.findall(r'- name: "(\w+) is quiet: ', TESTS) == alerts()


def test_constant_rule_fails_its_cases(tmp_path: Path) -> None:
    promtool = need("promtool")
    for name in alerts():
        (tmp_path / "alerts_test.yml").write_text(_only(name), encoding="utf-8")
        for wrong in ("vector(0) > 1", "vector(1)"):
            (tmp_path / "alerts.rules.yml").write_text(_with(name, wrong), encoding="utf-8")
            tested = subprocess.run(
                [promtool, "test", "rules", "alerts_test.yml"], cwd=tmp_path, capture_output=True, check=False
            )
            assert tested.returncode != 0, (name, wrong)


def _with(name: str, expression: str) -> str:
    """The rules with another expression for one alert."""
    before, _, rest = RULES.partition(f"- alert: {name}\n")
    end = min(rest.index(f"\n        {word}:") for word in ("for", "labels") if f"\n        {word}:" in rest)
    return f"{before}- alert: {name}\n        expr: {expression}{rest[end:]}"


def _only(name: str) -> str:
    """The promtool cases of one alert."""
    head, *tests = re.split(r"(?m)^(?=  - name: )", TESTS)
    return head + "".join(one for one in tests if re.match(rf'  - name: "?{name} ', one))


def test_every_alert_has_an_action_and_a_runbook_section() -> None:
    handbook = METRICS.read_text(encoding="utf-8")
    blocks = re.split(r"(?m)^ +- alert: ", RULES)[1:]
    for name, block in zip(alerts(), blocks, strict=True):
        assert re.search(r'(?m)^ +do: ".+\."$', block), name
        assert re.search(r"severity: (page|ticket) ", block), name
        assert f"### {name}\n" in handbook, name
