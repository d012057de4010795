"""One running system, shared by the journeys of a test process; crash tests start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.journeys.embedded_system import EmbeddedSystem, running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedSystem]:
    """A system that no test kills."""
    async with running(tmp_path_factory.mktemp("system") / "ataa") as started:
        yield started
