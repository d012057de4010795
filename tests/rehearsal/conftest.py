"""A town with its doors open, and a client to walk through them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from rehearsal.door import new_session
from tests.rehearsal.town import Town


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    """A town on a free port, without faults until a test asks for some."""
    town = Town()
    async with TestServer(town.application()) as server:
        town.base = str(server.make_url("")).rstrip("/")
        yield town


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The rehearsal's own client."""
    async with new_session() as session:
        yield session
