"""A fake backend, and the rehearsal's HTTP session."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from rehearsal.api_client import new_session
from tests.rehearsal.fake_backend import FakeBackend


@pytest.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    """A fake backend on a free port; its faults are off."""
    backend = FakeBackend()
    async with TestServer(backend.application()) as server:
        backend.base = str(server.make_url("")).rstrip("/")
        yield backend


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The rehearsal's HTTP session."""
    async with new_session() as session:
        yield session
