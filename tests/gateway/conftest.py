from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backbone.clock import FrozenClock
from tests.gateway.harness import Harness, gateway


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with gateway(tmp_path) as harness:
        yield harness


@pytest.fixture
async def frozen(tmp_path: Path) -> AsyncIterator[Harness]:
    """A gateway with a `FrozenClock`."""
    async with gateway(tmp_path, FrozenClock()) as harness:
        yield harness
