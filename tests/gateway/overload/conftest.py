from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.harness import Harness, gateway
from tests.gateway.overload.forced_load import ForcedLoad


@dataclass
class Loaded:
    """A running gateway and the load that it reads."""

    harness: Harness
    load: ForcedLoad


@pytest.fixture
async def loaded(tmp_path: Path) -> AsyncIterator[Loaded]:
    load = ForcedLoad()
    async with gateway(tmp_path, load=load) as harness:
        yield Loaded(harness, load)
