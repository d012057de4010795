"""Libraries that nothing calls are not loaded."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from backbone.optional_imports import without

_NEVER_CALLED = {"rich", "pygments", "requests", "markdown_it", "asyncpg"}


def test_a_package_cannot_be_imported_within_the_block_and_can_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without("this"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("this")
    assert importlib.import_module("this")


def test_a_package_that_is_imported_already_stays_so() -> None:
    with without("pytest"):
        assert importlib.import_module("pytest") is pytest
    assert sys.modules["pytest"] is pytest


def test_the_embedded_run_loads_no_library_that_it_never_calls() -> None:
    loaded = "import embedded.app, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True)
    assert not _NEVER_CALLED & set(found.stdout.split())
