"""The alert rules: valid, each with a firing and a quiet case, an action and a runbook section."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.observability.programs import need

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = (FOLDER / "alerts.rules.yml").read_text(encoding="utf-8")
TESTS = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
METRICS = Path(__file__).parents[2] / "docs" / "operations" / "metrics.md"


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [need("promtool"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_alert_rules_are_valid_and_pass_their_tests() -> None:
    for arguments in (("check", "rules", "alerts.rules.yml"), ("test", "rules", "alerts_test.yml")):
        found = _promtool(*arguments, folder=FOLDER)
        assert found.returncode == 0, found.stdout + found.stderr


def test_every_alert_has_a_firing_and_a_quiet_case() -> None:
    assert re.findall(r"- name: (\w+) fires$", TESTS, re.MULTILINE) == alerts()
    assert re.findall(r'- name: "(\w+) is quiet: ', TESTS) == alerts()


@pytest.mark.parametrize(
    ("expression", "case"), [("vector(0) > 1", "fires"), ("vector(1)", "is quiet: ")], ids=["never", "always"]
)
def test_constant_rule_fails_its_case(expression: str, case: str, tmp_path: Path) -> None:
    """The firing case fails if the rule of its alert never fires, the quiet case if it always does.

    Each alert has files of its own, because promtool evaluates every rule of a file for each of its cases.
    """
    files = []
    for name in alerts():
        (tmp_path / f"{name}.rules.yml").write_text(_rule(name, expression), encoding="utf-8")
        (tmp_path / f"{name}.test.yml").write_text(_case(f"{name} {case}", name), encoding="utf-8")
        files.append(f"{name}.test.yml")
    tested = _promtool("test", "rules", *files, folder=tmp_path)
    failed = re.findall(r"(?m)^ +name: (\w+) ", tested.stdout + tested.stderr)
    assert list(dict.fromkeys(failed)) == alerts(), tested.stdout + tested.stderr


def _rule(name: str, expression: str) -> str:
    """The rule of an alert alone, with another expression."""
    head, *blocks = re.split(r"(?m)^(?= +- alert: )", RULES)
    (block,) = (one for one in blocks if one.strip().startswith(f"- alert: {name}\n"))
    constant, replaced = re.subn(
        r"(?ms)^( +expr:).*?(?=^        (?:for|labels):)", rf"\1 {expression}\n", block
    )
    assert replaced == 1
    return head + constant


def _case(begins: str, name: str) -> str:
    """The case of an alert whose name begins like this, as a file of its own."""
    head, *cases = re.split(r"(?m)^(?=  - name: )", TESTS)
    (case,) = (one for one in cases if re.match(rf'  - name: "?{begins}', one))
    return head.replace("alerts.rules.yml", f"{name}.rules.yml") + case


def test_every_alert_has_an_action_and_a_runbook_section() -> None:
    handbook = METRICS.read_text(encoding="utf-8")
    blocks = re.split(r"(?m)^ +- alert: ", RULES)[1:]
    for name, block in zip(alerts(), blocks, strict=True):
        assert re.search(r'(?m)^ +do: ".+\."$', block), name
        assert re.search(r"severity: (page|ticket) ", block), name
        assert f"### {name}\n" in handbook, name
