from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backbone.http.service_client import InProcessServiceClient
from embedded.app import compose
from gateway.http.router import Route
from gateway.openapi import merge
from tests.gateway.harness import ADMIN, SECRET

# The routes of issue A, as API.md writes them.
OFFERED = """
POST /v1/keys
GET /v1/keys
DELETE /v1/keys/{}
POST /v1/drives
GET /v1/drives/{}
PATCH /v1/drives/{}
POST /v1/drives/{}/open
POST /v1/drives/{}/pause
POST /v1/drives/{}/resume
POST /v1/drives/{}/close
POST /v1/drives/{}/creators
GET /v1/drives/{}/creators
POST /v1/drives/{}/pledges
GET /v1/pledges
GET /v1/pledges/{}
POST /v1/pledges/{}/cancel
POST /v1/pledges/{}/refunds
POST /webhooks/stripe
GET /v1/webhooks
POST /v1/webhooks/{}/retry
GET /v1/drives/{}/totals
GET /v1/totals
GET /v1/drives/{}/live
GET /v1/drives/{}/leaderboards/{}
GET /v1/drives/{}/events
"""


@pytest.fixture
async def described(tmp_path: Path) -> dict[str, Any]:
    """The description of the whole door, with every real service behind it."""
    given = {
        "data_dir": tmp_path,
        "internal_secret": SecretStr(SECRET),
        "token_secret": SecretStr(SECRET),
        "admin_key": SecretStr(ADMIN),
        "stripe_api_base": "http://127.0.0.1:9",
        "stripe_api_key": SecretStr("sk_test_of_tests"),
        "stripe_webhook_secrets": ["whsec_of_tests"],
    }
    whole = compose(tmp_path, given)
    reply = await InProcessServiceClient(whole.gateway.app).request("GET", "/openapi.json", headers={})
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json()
    await whole.bus.close()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {re.sub('{[^}]*}', '{}', path)}", operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_the_description_has_every_route_and_no_other(described: dict[str, Any]) -> None:
    assert {line for line, _ in operations(described)} == set(OFFERED.split("\n")) - {""}


async def test_every_reference_leads_somewhere_and_every_schema_is_used(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    used = {ref.removeprefix("#/components/schemas/") for ref in references(described)}
    assert used == set(schemas)


async def test_every_path_parameter_is_described_and_every_operation_has_one_name(
    described: dict[str, Any],
) -> None:
    for path, item in described["paths"].items():
        for operation in item.values():
            named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert named == set(re.findall("{([^}]*)}", path)), path
    names = [operation["operationId"] for _, operation in operations(described)]
    assert len(set(names)) == len(names)
    assert len({line for line, _ in operations(described)}) == len(names)


async def test_every_operation_says_what_it_does_who_may_and_how_it_fails(described: dict[str, Any]) -> None:
    keyless = []
    for line, operation in operations(described):
        assert operation.get("description") or operation.get("summary"), line
        assert any(status.startswith("2") for status in operation["responses"]), line
        problem = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        if operation["security"] == []:
            keyless.append(line)
    assert sorted(keyless) == [
        "GET /v1/drives/{}/events",
        "GET /v1/drives/{}/leaderboards/{}",
        "GET /v1/drives/{}/live",
        "GET /v1/drives/{}/totals",
        "GET /v1/totals",
        "POST /webhooks/stripe",
    ]


async def test_bodies_are_described(described: dict[str, Any]) -> None:
    found = dict(operations(described))
    for line in (
        "POST /v1/drives",
        "POST /v1/drives/{}/pledges",
        "POST /v1/keys",
        "POST /v1/pledges/{}/refunds",
    ):
        schema = found[line]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].startswith("#/components/schemas/"), line


async def nothing(request: Any) -> Any:
    raise AssertionError


def test_schemas_of_one_name_and_two_meanings_are_kept_apart() -> None:
    def service(path: str, schema: dict[str, Any]) -> dict[str, Any]:
        answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/View"}}}}
        return {
            "paths": {
                path: {"get": {"operationId": path, "responses": {"200": answer}}},
                "/internal/x": {"get": {}},
            },
            "components": {"schemas": {"View": schema, "Unused": {}}},
        }

    text, number = {"type": "string"}, {"type": "integer"}
    merged = merge(
        {
            "pledges": service("/v1/a", text),
            "payments": service("/v1/b", number),
            "keys": service("/v1/c", text),
        },
        [Route("GET", f"/v1/{name}", nothing) for name in "abc"],
    )
    schemas = merged["components"]["schemas"]
    assert (schemas["View"], schemas["PaymentsView"]) == (text, number)
    assert "Unused" not in schemas
    assert "/internal/x" not in merged["paths"]
    refs = {
        path: next(references(merged["paths"][path]["get"]["responses"]["200"]))
        for path in ("/v1/a", "/v1/b", "/v1/c")
    }
    assert [ref.rpartition("/")[2] for ref in refs.values()] == ["View", "PaymentsView", "View"]
