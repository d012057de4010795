"""One set of real servers a test run: started by the first test that needs one, stopped with the run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import real


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the folder in which its workers leave word of what they started."""
    if not hasattr(config, "workerinput"):
        os.environ[real.FOLDER] = tempfile.mkdtemp(prefix="ataa-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and (folder := os.environ.pop(real.FOLDER, None)):
        real.stop_all(Path(folder))
