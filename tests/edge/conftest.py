"""One real embedded system for the tests of this folder, and the edge in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.edge.nginx import Edge, need_nginx, running_edge
from tests.journeys.embedded_system import EmbeddedSystem, running

CDN = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;\n"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedSystem]:
    """A system behind a proxy, with a tight limit for each donor's address."""
    need_nginx()
    limits = {"ATAA_LIMIT_ADDRESS_PER_S": "0.5", "ATAA_TRUSTED_PROXIES": "127.0.0.1"}
    async with running(tmp_path_factory.mktemp("system") / "ataa", **limits) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(system: EmbeddedSystem, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """The edge of nginx.conf, behind a CDN on loopback."""
    folder = tmp_path_factory.mktemp("edge") / "edge"
    async with running_edge(folder, system.gateway_port, site={"client_address.conf": CDN}) as started:
        yield started
