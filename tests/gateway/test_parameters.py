"""Invalid text in paths and queries is refused by every route, with the real services behind it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
import pytest_asyncio

from tests.gateway.whole_system import WholeSystem, whole_system

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
    "/overlay/{drive}": ("parts", "lang", "theme", "layout", "size"),
    "/overlay/{drive}/setup": ("lang",),
    "/donate/{drive}": ("creator", "currency", "lang", "amount"),
    "/donate/{drive}/thanks": ("pledge", "token", "lang"),
    "/events": ("x",),
    "/docs": ("x",),
}
"""Pages, which are not in the OpenAPI document, with the parameters of their queries."""
PLACES = {"drive": "winter", "board": "creators", "pledge": "plg_01frtz5n00000000000000000c"}
"""Valid values of path parameters, used while another one is tested."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path_factory.mktemp("whole")) as found:
        yield found


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
