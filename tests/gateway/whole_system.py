"""The gateway with the real services behind it, in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from yarl import URL

from backbone.clock import SystemClock
from backbone.service import listen, run_workers, server
from embedded.app import compose
from tests.gateway.harness import ADMIN, SECRET, bearer
from tests.migrated import place
from tests.waiting import until


@dataclass
class WholeSystem:
    """A gateway with the real services behind it."""

    session: aiohttp.ClientSession
    url: str
    described: dict[str, Any]

    async def ask(self, method: str, target: str) -> tuple[int, str]:
        """Status and content type; `target` is sent without any encoding."""
        headers = {**bearer(ADMIN), "Idempotency-Key": "k"}
        body = {} if method in ("POST", "PATCH") else None
        url = URL(self.url + target, encoded=True)
        async with self.session.request(
            method, url, json=body, headers=headers, allow_redirects=False
        ) as reply:
            return reply.status, reply.headers.get("Content-Type", "")


@asynccontextmanager
async def whole_system(
    folder: Path, *, workers_of: Sequence[str] = ("leaderboard", "pledges"), **settings: Any
) -> AsyncIterator[WholeSystem]:
    """Run all services in this process, with the live drive `winter`, and the workers of these services."""
    given = {
        "data_dir": folder,
        "internal_secret": SecretStr(SECRET),
        "token_secret": SecretStr(SECRET),
        "admin_key": SecretStr(ADMIN),
        "database_synchronous": "OFF",
        "stripe_api_base": "http://127.0.0.1:9",
        "stripe_api_key": SecretStr("sk_test_of_tests"),
        "stripe_webhook_secrets": ["whsec_of_tests"],
        **settings,
    }
    place("gateway", folder, settings)
    for name in ("pledges", "payments", "leaderboard", "notify"):
        place(f"services.{name}", folder, settings)
    composed = compose(folder, given)
    services = [*composed.services.values(), composed.gateway]
    for service in services:
        await service.start()
    working = [composed.gateway, *(composed.services[name] for name in workers_of)]
    stop = asyncio.Event()
    workers = asyncio.create_task(run_workers(working, stop))
    sock = listen("127.0.0.1", 0, "the test's port")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    api = server(composed.gateway.app)
    serving = asyncio.create_task(api.serve(sockets=[sock]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await until(lambda: api.started)
        async with session.get(f"{url}/openapi.json") as reply:
            found = WholeSystem(session, url, await reply.json())
        await open_a_drive(found)
        yield found
    composed.gateway.drain.set()
    stop.set()
    for topic in ("snapshots", "drive-log", "pledges", "payments"):  # ends blocking reads
        await composed.bus.publish_watermarks(topic, SystemClock().now(), range(12))
    await workers
    api.should_exit = True
    await serving
    for service in services:
        await service.close()
    await composed.bus.close()


async def open_a_drive(system: WholeSystem) -> None:
    money = {"currency": "USD", "value": "1000.00"}
    drive = {"slug": "winter", "title": "Winter", "currency": "USD", "goal": money}
    for path, body in (("/v1/drives", drive), ("/v1/drives/winter/open", {})):
        async with system.session.post(system.url + path, json=body, headers=bearer(ADMIN)) as reply:
            assert reply.status in (200, 201), await reply.text()

    async def is_shown() -> bool:
        return (await system.ask("GET", "/v1/drives/winter/totals"))[0] == 200

    await until(is_shown)
