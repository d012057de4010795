"""A sandbox on a free port, a receiver that verifies its webhooks, and Stripe's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import stripe

from sandbox.server import Options, Sandbox
from tests.sandbox.harness import API_KEY, SECRET, Donor, Receiver

StartSandbox = Callable[..., Awaitable[Donor]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def start_sandbox(receiver: Receiver) -> AsyncIterator[StartSandbox]:
    """Starts a sandbox in this process: `await start_sandbox(data=path)` returns its client."""
    async with AsyncExitStack() as stack:

        async def start(data: Path | None = None) -> Donor:
            options = Options(0, receiver.url, SECRET, API_KEY, data)
            sandbox = await stack.enter_async_context(Sandbox(options))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            client = stripe.StripeClient(
                API_KEY,
                base_addresses={"api": sandbox.base_url},
                http_client=stripe.AIOHTTPClient(session=http),
                max_network_retries=0,
            )
            return Donor(sandbox.base_url, client, http)

        yield start


@pytest.fixture
async def donor(start_sandbox: StartSandbox) -> Donor:
    return await start_sandbox()
