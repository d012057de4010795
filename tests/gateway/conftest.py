from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backbone.clock import FrozenClock
from tests.gateway.stage import Stage, gateway


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with gateway(tmp_path) as stage:
        yield stage


@pytest.fixture
async def frozen(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway whose clock stands still (`stage.frozen_clock`)."""
    async with gateway(tmp_path, FrozenClock()) as stage:
        yield stage
