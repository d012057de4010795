"""Architecture rules: imports, names, lengths, docstrings, and what may not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from tests import scheduling

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "backbone", "services", "gateway", "rehearsal", "embedded", "stack", "edge", "bench", "capacity",
    "simulation",
)  # fmt: skip
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SERVICES = ("pledges", "payments", "leaderboard", "notify")
VAGUE = re.compile(
    r"(^|_)(manager|helper|helpers|util|utils|base|common|misc)(_|$)|(Manager|Helper|Util)(s?)$"
)


@cache
def modules() -> Sequence[tuple[Path, ast.Module]]:
    """Every module, parsed, except migrations, which describe past schemas and do not change."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [
        (file.relative_to(ROOT), ast.parse(file.read_text()))
        for file in files
        if "migrations" not in file.parts
    ]


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file}:{node.lineno} {node.name}", node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_packages_import_only_what_the_contracts_allow() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_no_function_is_over_seventy_lines_and_most_are_under_twenty_five() -> None:
    lengths = {name: lines(node) for name, node in functions()}
    assert {name: length for name, length in lengths.items() if length > 70} == {}
    assert sum(length <= 25 for length in lengths.values()) / len(lengths) > 0.9


def test_no_name_contains_a_vague_word() -> None:
    vague = [str(file) for file, _ in modules() if VAGUE.search(file.stem)]
    for file, module in modules():
        vague += [
            f"{file}:{node.lineno} {node.name}"
            for node in ast.walk(module)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name != "base_url"  # the setting's name
            and VAGUE.search(node.name)
        ]
    assert vague == []


def test_handlers_are_named_for_their_effect() -> None:
    found = [name for name, node in functions() if "handlers.py" in name and node.name.startswith("on_")]
    assert found == []


def test_every_public_definition_has_a_docstring() -> None:
    undocumented = []
    for file, module in modules():
        if ast.get_docstring(module) is None:
            undocumented.append(str(file))
        for node in module.body:
            if not isinstance(node, DEFINITIONS) or node.name.startswith("_") or _is_problem(node):
                continue
            if ast.get_docstring(node) is None:
                undocumented.append(f"{file}:{node.lineno} {node.name}")
    assert undocumented == []


def _is_problem(node: ast.stmt) -> bool:
    """A class that its title documents: `class NotFound(Problem): status, slug, title = …`."""
    return isinstance(node, ast.ClassDef) and len(node.body) == 1 and isinstance(node.body[0], ast.Assign)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_shape(service: str) -> None:
    folder = ROOT / "services" / service
    wanted = {"__init__.py", "app.py", "settings.py", "handlers.py", "tables.py", "migrations"}
    assert wanted <= {entry.name for entry in folder.iterdir()}
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert all(word in docstring for word in ("Owns:", "Consumes:", "Publishes:"))
    assert "HANDLERS" in (folder / "handlers.py").read_text()


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: committed files cannot be listed")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_nothing_committed_names_a_package_host_or_a_path_of_one_machine() -> None:
    hosts = re.compile(
        "pypi" + r"\.org|pythonhosted|registry\." + "npmjs|repo1" + r"\.maven|proxy\." + "golang"
    )
    machine = re.compile(r"/(?:home|Users|root|work|farm)/[A-Za-z.]")
    found = []
    for file in tracked():
        if file.suffix in {".png", ".woff2", ".ico"} or file == Path(__file__):
            continue
        text = file.read_text(errors="replace")
        found += [str(file) for pattern in (hosts, machine) if pattern.search(text)]
    assert found == []


def test_every_scheduled_file_exists() -> None:
    scheduled = {*scheduling.LONGEST, *scheduling.APART, *scheduling.TOGETHER}
    assert [name for name in sorted(scheduled) if not (ROOT / name).is_file()] == []


def test_locks_carry_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pinned = [line for line in text.splitlines() if re.match(r"^[a-z0-9]", line)]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned)
        assert "://" not in text


def test_code_has_no_open_markers() -> None:
    markers = re.compile(
        r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b|NotImplementedError"
    )
    left = [
        str(file)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if markers.search(file.read_text())
    ]
    assert left == []
