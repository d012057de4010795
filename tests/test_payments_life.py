"""docs/payments-life.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "payments-life.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?)?(?:::(\w+))?`", PAGE)
    path, count = "", 0
    for file, test in named:
        path = file or path
        if not (file or test):
            continue
        assert (ROOT / path).exists(), path
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
            count += 1
    assert count > 15
