"""Runs `python -m stack` in tests; skips a test whose requirements are missing, with their names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack import kafka
from stack.requirements import MissingRequirement
from stack.settings import StackSettings
from stack.startup import check

ROOT = Path(__file__).resolve().parents[2]


def need_engines(data_dir: Path) -> None:
    """Make the stack startable in `data_dir`; else skip, or fail where ATAA_REQUIRE_REAL=1.

    Kafka's jars are fetched once, into the repository's own data directory.
    """
    shared = ROOT / ".ataa"
    missing = check(StackSettings(data_dir=shared))
    if not missing:
        try:
            found = kafka.find_libraries(shared, os.environ) or kafka.fetch(shared)
        except MissingRequirement as error:
            missing = [str(error)]
        else:
            (data_dir / "kafka").mkdir(parents=True)
            shutil.copytree(found, data_dir / "kafka" / "libs")
    if missing:
        message = "the real stack: " + "; ".join(missing)
        if os.environ.get("ATAA_REQUIRE_REAL") == "1":
            pytest.fail(message)
        pytest.skip(message)


def stack(data_dir: Path, base: int, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m stack …` on `data_dir` with ports from `base`; returns its output and exit status."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    return subprocess.run(
        [sys.executable, "-m", "stack", *arguments],
        cwd=ROOT,
        env={
            **kept,
            "ATAA_DATA_DIR": str(data_dir),
            "ATAA_STACK_PORT_BASE": str(base),
            "COLUMNS": "200",
            "ATAA_OVERLOAD_LAG_S": "60",  # a busy machine is no overload here (tests/conftest.py)
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
