"""Every crash point in the code has a test that kills a process there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("backbone", "services", "gateway", "embedded")

OWNERS: Final = {"self.group": "Consumer", "self._service": "Relay"}
"""By the expression a composed name begins with: the class whose first argument is that name."""

UNREACHABLE: Final = {
    "notify.outbox.after_ack": "notify publishes dead letters only; the relay's code is tested by others",
}


@cache
def calls_in(package: str) -> list[ast.Call]:
    trees = [ast.parse(file.read_text()) for file in sorted((ROOT / package).rglob("*.py"))]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def calls(*names: str, among: tuple[str, ...] = PACKAGES) -> Iterator[ast.Call]:
    """Every call of a function or class with one of these names."""
    for package in among:
        for call in calls_in(package):
            if isinstance(call.func, ast.Name) and call.func.id in names:
                yield call


def constructor_names(owner: str) -> set[str]:
    """The names the composition roots pass to their consumers or relays."""
    first = [call.args[0] for call in calls(owner, among=("services", "gateway"))]
    return {str(each.value) for each in first if isinstance(each, ast.Constant)}


def crash_points_of(name: ast.expr) -> set[str]:
    """The crash points of a call of `crash_point`. Fails if the name cannot be derived."""
    if isinstance(name, ast.Constant):
        return {str(name.value)}
    assert isinstance(name, ast.JoinedStr), ast.dump(name)
    head, *rest = name.values
    assert isinstance(head, ast.FormattedValue), ast.dump(name)
    tail = "".join(str(part.value) for part in rest if isinstance(part, ast.Constant))
    assert len(rest) == 1, ast.dump(name)
    return {owner + tail for owner in constructor_names(OWNERS[ast.unparse(head.value)])}


def crash_points_in_code() -> set[str]:
    """Every crash point in the code."""
    return set().union(*(crash_points_of(call.args[0]) for call in calls("crash_point")))


def crash_points_in_tests() -> set[str]:
    """Every string, without `:n`, in the test files that set ATAA_CRASH_AT."""
    found: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        source = file.read_text()
        if "ATAA_CRASH_AT" in source and file != Path(__file__):
            texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
            found |= {text.partition(":")[0] for text in texts if isinstance(text, str)}
    return found


def test_every_crash_point_in_the_code_is_tested() -> None:
    points = crash_points_in_code()
    assert {"payments.applier.before_commit", "notify.consumer.before_commit"} <= points
    assert points - crash_points_in_tests() == UNREACHABLE.keys()
