"""What the tests of pledges share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pledges.stage import Stage, on_stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A fresh pledges."""
    async with on_stage(tmp_path) as stage:
        yield stage
