"""The alert rules: valid, each with a firing and a quiet case, an action and a runbook section."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
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


def test_alert_rules_are_valid_and_pass_their_tests(tmp_path: Path) -> None:
    checked = _promtool("check", "rules", "alerts.rules.yml", folder=FOLDER)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = _test_apart(tmp_path, {name: (_rule(name), _cases(name)) for name in alerts()})
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert tested.stdout.count("SUCCESS") == len(alerts())


def test_every_alert_has_a_firing_and_a_quiet_case() -> None:
    assert re.findall(r"- name: (\w+) fires$", TESTS, re.MULTILINE) == alerts()
    assert re.findall(r'- name: "(\w+) is quiet: ', TESTS) == alerts()
    assert len(re.findall(r"^  - name: ", TESTS, re.MULTILINE)) == 2 * len(alerts())  # and no other case


@pytest.mark.parametrize(
    ("expression", "case"), [("vector(0) > 1", "fires"), ("vector(1)", "is quiet")], ids=["never", "always"]
)
def test_constant_rule_fails_its_case(expression: str, case: str, tmp_path: Path) -> None:
    """The firing case fails if the rule of its alert never fires, the quiet case if it always does."""
    wrong = {name: (_constant(name, expression), _cases(f"{name} {case}")) for name in alerts()}
    tested = _test_apart(tmp_path, wrong)
    failed = re.findall(r"(?m)^ +name: (\w+) ", tested.stdout + tested.stderr)
    assert list(dict.fromkeys(failed)) == alerts(), tested.stdout + tested.stderr


def _test_apart(folder: Path, files: Mapping[str, tuple[str, str]]) -> subprocess.CompletedProcess[str]:
    """Have one promtool run the cases of each alert on its rule alone.

    For each case of a file promtool evaluates every rule of the file, which takes ten times as long.
    """
    for name, (rules, cases) in files.items():
        (folder / f"{name}.rules.yml").write_text(rules, encoding="utf-8")
        renamed = cases.replace("rule_files: [alerts.rules.yml]", f"rule_files: [{name}.rules.yml]")
        (folder / f"{name}.test.yml").write_text(renamed, encoding="utf-8")
    return _promtool("test", "rules", *(f"{name}.test.yml" for name in files), folder=folder)


def _rule(name: str) -> str:
    """The rules without those of other alerts."""
    head, *blocks = re.split(r"(?m)^(?= +- alert: )", RULES)
    (block,) = (one for one in blocks if one.strip().startswith(f"- alert: {name}\n"))
    return head + block


def _constant(name: str, expression: str) -> str:
    """The rule of an alert with another expression."""
    constant, replaced = re.subn(
        r"(?ms)^( +expr:).*?(?=^        (?:for|labels):)", rf"\1 {expression}\n", _rule(name)
    )
    assert replaced == 1
    return constant


def _cases(begins: str) -> str:
    """The cases whose names begin like this."""
    head, *cases = re.split(r"(?m)^(?=  - name: )", TESTS)
    return head + "".join(one for one in cases if re.match(rf'  - name: "?{begins}\b', one))


def test_every_alert_has_an_action_and_a_runbook_section() -> None:
    handbook = METRICS.read_text(encoding="utf-8")
    blocks = re.split(r"(?m)^ +- alert: ", RULES)[1:]
    for name, block in zip(alerts(), blocks, strict=True):
        assert re.search(r'(?m)^ +do: ".+\."$', block), name
        assert re.search(r"severity: (page|ticket|info) ", block), name
        assert f"### {name}\n" in handbook, name
