"""What the tests of pledges share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pledges.harness import Harness, pledges_harness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """A fresh pledges."""
    async with pledges_harness(tmp_path) as harness:
        yield harness
