"""The version of this package, for descriptions of it."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""The same as in `pyproject.toml`, which is not there where the package is installed."""
