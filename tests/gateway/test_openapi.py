from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr

from backbone.http.problems import Problem
from backbone.http.service_client import InProcessServiceClient
from embedded.app import compose
from gateway.http.router import Route, is_name
from gateway.live.connection import _DRAIN, gap_frame
from gateway.openapi.document import merge
from tests.described import check, check_frame
from tests.gateway.harness import ADMIN, DRIVE, SECRET

# The routes of the public API.
OFFERED = """
POST /v1/keys
GET /v1/keys
DELETE /v1/keys/{}
POST /v1/drives
GET /v1/drives
GET /v1/drives/{}
PATCH /v1/drives/{}
GET /v1/drives/{}/messages
GET /v1/drives/{}/decisions
GET /v1/messages/{}/history
POST /v1/messages/{}/approve
POST /v1/messages/{}/hide
POST /v1/messages/{}/pin
POST /v1/messages/{}/unpin
POST /v1/messages/{}/hold
POST /v1/drives/{}/alerts/pause
POST /v1/drives/{}/alerts/resume
POST /v1/drives/{}/alerts/skip
POST /v1/drives/{}/alerts/replay
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
POST /v1/drives/{}/offline-gifts
GET /v1/offline-gifts
POST /v1/offline-gifts/{}/approve
POST /v1/offline-gifts/{}/reject
POST /v1/offline-gifts/{}/reverse
POST /v1/drives/{}/matching-pools
GET /v1/drives/{}/matching-pools
POST /v1/matching-pools/{}/end
PUT /v1/rates/{}/{}
GET /v1/rates
POST /v1/drives/{}/contributions
GET /v1/drives/{}/contributions
GET /v1/contributions
POST /v1/contributions/{}/approve
POST /v1/contributions/{}/reject
POST /v1/drives/{}/disbursements
GET /v1/drives/{}/disbursements
GET /v1/disbursements
POST /v1/disbursements/{}/approve
POST /v1/disbursements/{}/reject
POST /v1/disbursements/{}/reverse
POST /webhooks/stripe
GET /v1/payments
GET /v1/payments/{}
POST /v1/payments/{}/release
POST /v1/payments/{}/refunds
GET /v1/refunds
POST /v1/refunds/{}/approve
POST /v1/refunds/{}/reject
GET /v1/drives/{}/ledger
GET /v1/drives/{}/trial-balance
GET /v1/drives/{}/statement
GET /v1/payouts
GET /v1/checkouts
POST /v1/checkouts/pause
POST /v1/checkouts/resume
GET /v1/webhooks
POST /v1/webhooks/{}/retry
GET /v1/drives/{}/totals
GET /v1/totals
GET /v1/drives/{}/live
GET /v1/drives/{}/leaderboards/{}
GET /v1/drives/{}/donations
GET /v1/drives/{}/events
GET /v1/drives/{}/audit
GET /v1/drives/{}/funnel
GET /v1/drives/{}/checkpoint
GET /v1/drives/{}/tile/{}
GET /v1/drives/{}/{}/checkpoint
GET /v1/drives/{}/{}/tile/{}
GET /.well-known/ataa-log-key
GET /v1/pledges/{}/proof
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The description of the whole API, with every real service behind it."""
    return asyncio.run(describe(tmp_path_factory.mktemp("described")))


async def describe(tmp_path: Path) -> dict[str, Any]:
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


def test_the_description_has_every_route_and_no_other(described: dict[str, Any]) -> None:
    assert {line for line, _ in operations(described)} == set(OFFERED.split("\n")) - {""}


def test_every_reference_resolves_and_every_schema_is_used(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    used = {ref.removeprefix("#/components/schemas/") for ref in references(described)}
    assert used == set(schemas)


def test_every_path_parameter_is_described_and_every_operation_has_one_name(
    described: dict[str, Any],
) -> None:
    for path, item in described["paths"].items():
        for operation in item.values():
            named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert named == set(re.findall("{([^}]*)}", path)), path
    names = [operation["operationId"] for _, operation in operations(described)]
    assert len(set(names)) == len(names)
    assert len({line for line, _ in operations(described)}) == len(names)


def test_every_operation_has_description_scope_and_problems(described: dict[str, Any]) -> None:
    keyless = []
    for line, operation in operations(described):
        assert operation["summary"], line
        assert any(status.startswith("2") for status in operation["responses"]), line
        problem = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        if operation["security"] == []:
            keyless.append(line)
    assert sorted(keyless) == [
        "GET /.well-known/ataa-log-key",
        "GET /v1/drives/{}/audit",
        "GET /v1/drives/{}/checkpoint",
        "GET /v1/drives/{}/contributions",
        "GET /v1/drives/{}/disbursements",
        "GET /v1/drives/{}/donations",
        "GET /v1/drives/{}/events",
        "GET /v1/drives/{}/leaderboards/{}",
        "GET /v1/drives/{}/live",
        "GET /v1/drives/{}/tile/{}",
        "GET /v1/drives/{}/totals",
        "GET /v1/drives/{}/{}/checkpoint",
        "GET /v1/drives/{}/{}/tile/{}",
        "GET /v1/pledges/{}/proof",
        "GET /v1/totals",
        "POST /webhooks/stripe",
    ]


def test_bodies_are_described(described: dict[str, Any]) -> None:
    found = dict(operations(described))
    for line in (
        "POST /v1/drives",
        "POST /v1/drives/{}/pledges",
        "POST /v1/keys",
        "POST /v1/pledges/{}/refunds",
        "PATCH /v1/drives/{}",
        "POST /v1/drives/{}/offline-gifts",
    ):
        schema = found[line]["requestBody"]["content"]["application/json"]["schema"]
        refs = [ref.removeprefix("#/components/schemas/") for ref in references(schema)]
        assert refs, line
        assert described["components"]["schemas"][refs[0]]["examples"], line


def test_operations_are_grouped_and_have_a_summary_of_one_line(described: dict[str, Any]) -> None:
    groups = [tag["name"] for tag in described["tags"]]
    assert len(set(groups)) == len(groups)
    used = set()
    for line, operation in operations(described):
        (tag,) = operation["tags"]
        used.add(tag)
        assert 0 < len(operation["summary"]) <= 70, line
        assert not operation["summary"].endswith("."), line
        assert "\n" not in operation["summary"], line
    assert used == set(groups)


def test_the_description_has_the_version_of_the_package(described: dict[str, Any]) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert described["info"]["version"] == project["version"]


OWN_PAGES_ONLY = {"form-expired", "unsupported-format", "no-session", "cross-origin", "csrf-token-wrong"}
"""Problems of the hosted form, of oEmbed and of browser sessions, which have no operation of their own."""
WITHOUT_OPERATION = {"bad-request", "conflict", "method-not-allowed"}


def test_every_type_of_problem_is_documented_with_its_status(described: dict[str, Any]) -> None:
    documented: dict[str, set[str]] = {}
    for _, operation in operations(described):
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                for kind in media["schema"].get("properties", {}).get("type", {}).get("enum", ()):
                    documented.setdefault(kind, set()).add(status)
                    assert media["examples"][kind.removeprefix("/problems/")]["value"]["type"] == kind
    raised = {f"/problems/{kind.slug}": {str(kind.status)} for kind in subclasses(Problem)}
    left_out = {f"/problems/{slug}" for slug in OWN_PAGES_ONLY | WITHOUT_OPERATION}
    assert documented == {kind: status for kind, status in raised.items() if kind not in left_out}


def subclasses(kind: type[Problem]) -> Iterator[type[Problem]]:
    yield kind
    for one in kind.__subclasses__():
        yield from subclasses(one)


def test_every_example_satisfies_its_own_schema(described: dict[str, Any]) -> None:
    checked = 0
    for schema in described["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            check(described, schema, example)
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("slug", ["winter", "-", "-winter", "2026", "a" * 64])
def test_every_slug_that_a_drive_may_have_is_found_by_the_router(
    slug: str, described: dict[str, Any]
) -> None:
    check(described, described["components"]["schemas"]["DriveRequest"]["properties"]["slug"], slug)
    assert is_name(slug)


USD = {"currency": "USD", "value": "25.00"}
POOL = {"sponsor": "Acme", "cap": USD, "ratio": "1.00"}
STAR = {"slug": "star", "name": "Star"}
PUBLISHABLE = {"kind": "publishable", "origins": ["https://example.org"]}
NEW_DRIVE: dict[str, Any] = {"slug": "winter", "title": "Winter", "currency": "USD", "goal": USD}


@pytest.mark.parametrize(
    ("line", "fitting", "unfitting"),
    [
        ("POST /v1/drives", NEW_DRIVE, {"slug": "Winter"}),
        ("POST /v1/drives", NEW_DRIVE, {"title": " "}),
        ("POST /v1/drives", NEW_DRIVE, {"title": {"english": "Winter"}}),
        ("POST /v1/drives", NEW_DRIVE, {"currency": "usd"}),
        ("POST /v1/drives", NEW_DRIVE, {"goal": {"currency": "USD", "value": "25.0"}}),
        ("POST /v1/drives", NEW_DRIVE, {"goal": {"currency": "JPY", "value": "25.00"}}),
        ("POST /v1/drives", NEW_DRIVE, {"goal": {"currency": "USD", "value": "0.00"}}),
        ("POST /v1/drives", NEW_DRIVE, {"menu": [{"currency": "USD", "value": "0.49"}]}),
        ("POST /v1/drives", NEW_DRIVE, {"starts_at": "tomorrow"}),
        ("POST /v1/drives", NEW_DRIVE, {"partners": ["a", "a"]}),
        ("POST /v1/drives", NEW_DRIVE, {"colour": "red"}),
        ("PATCH /v1/drives/{}", {"slug": "winter"}, {"slug": None}),
        ("PATCH /v1/drives/{}", {"description": None}, {"zakat_eligible": "no"}),
        (
            "POST /v1/drives/{}/creators",
            {"slug": "star", "name": "Star"},
            {"channel_url": "http://example.org"},
        ),
        ("POST /v1/drives/{}/creators", {"slug": "star", "name": "Star"}, {"name": ""}),
        (
            "POST /v1/drives/{}/pledges",
            {"amount": USD},
            {"amount": {"currency": "USD", "value": "1000000.00"}},
        ),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"amount": {"currency": "KWD", "value": "1.001"}}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"donor": {"email": "layla"}}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"donor": {"locale": "arabic"}}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"message": "x" * 281}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"message": "a\x00b"}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"return_url": "javascript:alert(1)"}),
        ("POST /v1/drives/{}/pledges", {"amount": USD}, {"reference": ""}),
        ("POST /v1/drives/{}/matching-pools", POOL, {"ratio": "1"}),
        ("POST /v1/drives/{}/matching-pools", POOL, {"sponsor": " "}),
        ("POST /v1/drives/{}/matching-pools", POOL, {"cap": {"currency": "USD", "value": "0.00"}}),
        ("POST /v1/drives/{}/matching-pools", POOL, {"creator": "Layla"}),
        ("POST /v1/keys", {"kind": "secret"}, {"origins": ["https://example.org"]}),
        (
            "POST /v1/keys",
            {"kind": "publishable", "origins": ["https://example.org"]},
            {"scopes": ["drives"]},
        ),
        ("POST /v1/keys", PUBLISHABLE, {"origins": []}),
        ("POST /v1/keys", {"kind": "secret"}, {"partner": "A"}),
        ("POST /v1/pledges/{}/refunds", {}, {"amount": {"currency": "USD", "value": "-1.00"}}),
    ],
)
def test_schemas_refuse_what_validation_refuses(
    described: dict[str, Any], line: str, fitting: dict[str, Any], unfitting: dict[str, Any]
) -> None:
    schema = dict(operations(described))[line]["requestBody"]["content"]["application/json"]["schema"]
    check(described, schema, fitting)
    with pytest.raises(jsonschema.ValidationError):
        check(described, schema, {**fitting, **unfitting})


@pytest.mark.parametrize(
    ("line", "name", "fitting", "unfitting"),
    [
        ("POST /v1/drives/{}/pledges", "Idempotency-Key", "k" * 255, "k" * 256),
        ("POST /v1/drives", "Idempotency-Key", "k", "two words"),
        ("GET /v1/drives/{}", "drive", "winter", "Winter"),
        ("GET /v1/drives/{}/creators", "limit", 100, 101),
        ("GET /v1/drives/{}/creators", "after", "crt_1", ""),
        ("GET /v1/drives/{}/events", "after", 0, -1),
        ("GET /v1/pledges", "status", "paid", "payed"),
        ("GET /v1/pledges", "reference", "x" * 255, "x" * 256),
        ("GET /v1/totals", "drives", ["a", "b"], ["a"] * 51),
        ("GET /v1/drives/{}/live", "last_event_id", "155391", "1\x00"),
        ("GET /v1/drives/{}/leaderboards/{}", "window", "1h", "2h"),
        ("GET /v1/drives/{}/leaderboards/{}", "board", "sources", "cities"),
        ("GET /v1/drives/{}/leaderboards/{}", "around", "youtube/night", ""),
        ("GET /v1/drives/{}/donations", "limit", 100, 0),
        ("GET /v1/webhooks", "state", "set_aside", "lost"),
    ],
)
def test_parameters_have_the_limits_that_are_enforced(
    described: dict[str, Any], line: str, name: str, fitting: Any, unfitting: Any
) -> None:
    parameters = {one["name"]: one for one in dict(operations(described))[line]["parameters"]}
    check(described, parameters[name]["schema"], fitting)
    with pytest.raises(jsonschema.ValidationError):
        check(described, parameters[name]["schema"], unfitting)


def test_a_required_idempotency_key_is_a_required_parameter(described: dict[str, Any]) -> None:
    required = {
        line
        for line, operation in operations(described)
        for one in operation["parameters"]
        if one["name"] == "Idempotency-Key" and one["required"]
    }
    assert required == {
        "POST /v1/drives/{}/pledges",
        "POST /v1/pledges/{}/refunds",
        "POST /v1/payments/{}/refunds",
        "POST /v1/drives/{}/offline-gifts",
    }


def test_frames_that_only_the_gateway_sends_satisfy_their_schema(described: dict[str, Any]) -> None:
    assert check_frame(described, gap_frame(DRIVE, 4)) == "gap"
    assert check_frame(described, _DRAIN) == "drain"


@pytest.mark.parametrize(
    "frame",
    [
        b'event: donation\nid: 4\ndata: {"sequence": 4}\n\n',
        b"event: donation\ndata: {}\n\n",
        b'event: surprise\nid: 4\ndata: {"sequence": 4}\n\n',
        b'event: gap\ndata: {"after": "4", "events": "/v1/drives/d/events?after=4"}\n\n',
    ],
)
def test_frames_of_another_form_do_not_satisfy_the_schema(described: dict[str, Any], frame: bytes) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check_frame(described, frame)


async def nothing(request: Any) -> Any:
    raise AssertionError


def test_different_schemas_of_one_name_are_kept_apart() -> None:
    def service(path: str, schema: dict[str, Any]) -> dict[str, Any]:
        answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingView"}}}}
        return {
            "paths": {
                path: {"get": {"operationId": path, "responses": {"200": answer}}},
                "/internal/x": {"get": {}},
            },
            "components": {"schemas": {"ThingView": schema, "Unused": {}}},
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
    assert (schemas["Thing"], schemas["PaymentsThing"]) == (text, number)
    assert "Unused" not in schemas
    assert "/internal/x" not in merged["paths"]
    refs = {
        path: next(references(merged["paths"][path]["get"]["responses"]["200"]))
        for path in ("/v1/a", "/v1/b", "/v1/c")
    }
    assert [ref.rpartition("/")[2] for ref in refs.values()] == ["Thing", "PaymentsThing", "Thing"]
