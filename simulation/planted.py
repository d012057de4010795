"""Bugs of the kinds a simulation has to find, planted on demand to show that it finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BUGS: Final[dict[str, Callable[[], None]]] = {}
