"""The browsers that are installed on this machine."""

from __future__ import annotations

import os
import shutil

import pytest


def installed_browser(name: str, variable: str, *commands: str) -> str:
    """The path that an environment variable names, or that of the first command found.

    Without one the test is skipped, or fails with ATAA_REQUIRE_REAL=1.
    """
    path = os.environ.get(variable) or next(filter(None, map(shutil.which, commands)), None)
    if path is None:
        reason = f"no {name} found: set {variable}, or install one on the path"
        if os.environ.get("ATAA_REQUIRE_REAL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
