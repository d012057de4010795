"""Finds Prometheus's programs and the dashboard library."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest


def need(program: str) -> str:
    """The path of `program`; skips the test without it, or fails it where ATAA_REQUIRE_REAL=1."""
    found = shutil.which(program)
    if found is None:
        _missing(f"{program} is not installed (on Debian: apt install prometheus)")
    assert found is not None
    return found


def need_dashboard_library() -> None:
    """Skip or fail, as `need`, without grafana-foundation-sdk."""
    if find_spec("grafana_foundation_sdk") is None:
        _missing("grafana-foundation-sdk is not installed (pip install -r requirements-dashboards.lock)")


def _missing(reason: str) -> None:
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
