"""Imports of libraries that would load others which they can do without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Within the block, `packages` that are not imported yet cannot be imported; afterwards they can.

    For the import of a library that loads them where they are installed and does without where they are not.
    It saves the memory of code that is never called.
    """
    hidden = [name for name in packages if name not in sys.modules]
    # None in sys.modules makes an import raise ModuleNotFoundError (docs.python.org, "The import system").
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
