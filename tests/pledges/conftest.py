"""Fixtures of pledges' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pledges.harness import Harness, pledges_harness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """A new pledges service."""
    async with pledges_harness(tmp_path) as harness:
        yield harness
