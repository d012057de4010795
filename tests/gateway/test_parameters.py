"""Invalid text in paths and queries is refused by every route, with the real services behind it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from yarl import URL

from backbone.clock import SystemClock
from backbone.service import listen, run_workers, server
from embedded.app import compose
from tests.gateway.harness import ADMIN, SECRET, bearer
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = {
    "NUL": "%00",
    "NUL inside": "win%00ter",
    "lone surrogate": "%ED%A0%80",
    "lone surrogate inside": "a%ED%BF%BFb",
    "not UTF-8": "%FF%FE",
    "cut short": "%E2%82",
    "overlong": "x" * 5000,
    "overlong number": "9" * 500,
    "negative": "-1",
    "just past 64 bits": "18446744073709551616",
    "other digits": "%D9%A1%D9%A2",
    "line break": "a%0D%0Ab",
    "percent": "%25",
    "emoji": "%F0%9F%92%A7",
}
PAGES = {
    "/overlay/{drive}": ("parts", "lang", "theme"),
    "/donate/{drive}": ("creator", "lang", "amount"),
    "/donate/{drive}/thanks": ("pledge", "token", "lang"),
    "/events": ("x",),
    "/docs": ("x",),
}
"""Pages, which are not in the OpenAPI document, with the parameters of their queries."""
PLACES = {"drive": "winter", "board": "creators", "pledge": "plg_01frtz5n00000000000000000c"}
"""Valid values of path parameters, used while another one is tested."""


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    folder: Path = tmp_path_factory.mktemp("whole")
    given = {
        "data_dir": folder,
        "internal_secret": SecretStr(SECRET),
        "token_secret": SecretStr(SECRET),
        "admin_key": SecretStr(ADMIN),
        "database_synchronous": "OFF",
        "stripe_api_base": "http://127.0.0.1:9",
        "stripe_api_key": SecretStr("sk_test_of_tests"),
        "stripe_webhook_secrets": ["whsec_of_tests"],
    }
    composed = compose(folder, given)
    services = [*composed.services.values(), composed.gateway]
    for service in services:
        await service.start()
    working = [composed.gateway, composed.services["leaderboard"], composed.services["pledges"]]
    stop = asyncio.Event()
    workers = asyncio.create_task(run_workers(working, stop))
    sock = listen("127.0.0.1", 0, "the test's port")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    api = server(composed.gateway.app)
    serving = asyncio.create_task(api.serve(sockets=[sock]))
    async with aiohttp.ClientSession() as session:
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


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Each method and path with the parameters of its query."""
    for path, item in described["paths"].items():
        for method, operation in item.items():
            names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            yield method.upper(), path, names
    for path, query in PAGES.items():
        yield "GET", path, list(query)


def filled(path: str, name: str = "", value: str = "") -> str:
    """`path` with `value` for the parameter `name` and valid values for the others."""
    return re.sub(r"\{([^}]*)\}", lambda one: value if one[1] == name else PLACES.get(one[1], "winter"), path)


def targets(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for method, path, names in operations(described):
        for value in INVALID.values():
            for name in re.findall(r"\{([^}]*)\}", path):
                yield method, filled(path, name, value)
            for name in names:
                yield method, f"{filled(path)}?{name}={value}"


async def test_every_parameter_of_every_route_refuses_invalid_values(system: WholeSystem) -> None:
    wrong, tried = [], 0
    for method, target in targets(system.described):
        tried += 1
        status, kind = await system.ask(method, target)
        # Pages ignore invalid query parameters.
        fine = (400 <= status < 500 and kind == "application/problem+json") or "%" not in target
        if status >= 500 or (target.startswith("/v1") and not fine and not is_readable(target)):
            wrong.append(f"{status} {method} {target[:90]} {kind}")
    assert wrong == []
    assert tried > 500


def is_readable(target: str) -> bool:
    """Whether the query is valid text, such as a reference."""
    query = unquote_to_bytes(target.partition("?")[2])
    try:
        return bool(query) and b"\x00" not in query and bool(query.decode())
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("value", [INVALID["NUL"], INVALID["lone surrogate"], INVALID["overlong"]])
async def test_invalid_query_is_named_in_the_problem(system: WholeSystem, value: str) -> None:
    for target in (
        f"/v1/drives/winter/leaderboards/creators?around={value}",
        f"/v1/drives/winter/events?after={value}",
        f"/v1/keys?limit={value}",
        f"/v1/pledges?status={value}",
    ):
        status, kind = await system.ask("GET", target)
        assert (status, kind) == (422, "application/problem+json"), target
    status, kind = await system.ask("GET", f"/v1/totals?drives={value}")
    assert (status, kind) == (404 if value.startswith("x") else 422, "application/problem+json")


async def test_all_described_parameters_are_tested(system: WholeSystem) -> None:
    named = {(path, name) for _, path, names in operations(system.described) for name in names}
    assert {("/v1/totals", "drives"), ("/v1/pledges", "reference")} <= named
    assert json.dumps(system.described).count('"in": "query"') >= 10
