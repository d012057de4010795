"""`/openapi.json`: the services' OpenAPI documents and the gateway's own, merged into one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from backbone.http.problems import Problem
from backbone.http.service_client import ServiceClient, ServiceUnavailable
from backbone.version import VERSION
from gateway.http.router import Route
from gateway.openapi.models import SHARED
from gateway.openapi.models import schemas as own_schemas
from gateway.openapi.operations import (
    IDEMPOTENCY_KEY,
    OPERATIONS,
    REPLAYED,
    TAGS,
    UNFORESEEN,
    added_problems,
    problem_response,
    tag_of,
)
from gateway.proxy.forwarding import PROXY_ROUTES
from gateway.proxy.public_reads import PUBLIC_READS

_KEYLESS: Final = (
    "/v1/drives/{}/leaderboards/{}",
    "/v1/drives/{}/donations",
    "/v1/drives/{}/events",
    "/v1/drives/{}/audit",
    *(pattern.replace("{drive}", "{}") for pattern in PUBLIC_READS),
)
"""Paths whose reads need no key."""

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_VALUES: Final = ("const", "default", "enum", "example", "examples")
"""Keywords that hold values and not schemas."""

_REF: Final = "#/components/schemas/"
_PARAM: Final = re.compile(r"\{[^}]*\}")

Json = dict[str, Any]


def _shape(path: str) -> str:
    return _PARAM.sub("{}", path)


_RULES: Final = {(one.method.lower(), _shape(one.pattern)): one for one in PROXY_ROUTES}
_KEY: Final = "idempotency-key"
_PLEDGING: Final = ("post", "/v1/drives/{}/pledges")


class Description:
    """The merged document, made when it is first asked for and every service answered."""

    def __init__(self, service_clients: Mapping[str, ServiceClient], signed: Mapping[str, str]) -> None:
        self._service_clients = service_clients
        self._signed = signed
        self._made: bytes | None = None
        self.routes: Iterable[Route] = ()

    async def document(self) -> bytes:
        """The OpenAPI document as JSON; raises `ServiceUnavailable`."""
        if self._made is None:
            names = [
                name
                for name in ("pledges", "payments", "leaderboard", "keys")
                if name in self._service_clients
            ]
            found = await asyncio.gather(*(self._ask(name) for name in names))
            merged = merge(dict(zip(names, found, strict=True)), self.routes)
            self._made = json.dumps(merged, ensure_ascii=False).encode()
        return self._made

    async def _ask(self, name: str) -> Json:
        reply = await self._service_clients[name].request("GET", "/openapi.json", headers=self._signed)
        if reply.status != 200:
            raise ServiceUnavailable(f"{name} has no description: {reply.status}")
        described: Json = reply.json()
        return described


def merge(services: Mapping[str, Json], routes: Iterable[Route]) -> Json:
    """One document of what `routes` offers, from what each service describes."""
    public = {(route.method.lower(), _shape(route.pattern)): route.pattern for route in routes}
    paths: Json = {}
    schemas: Json = own_schemas()
    for service, described in services.items():
        renamed = _adopt(schemas, service, described.get("components", {}).get("schemas", {}))
        for path, item in described.get("paths", {}).items():
            for method in _METHODS:
                pattern = public.get((method, _shape(path)))
                if method in item and pattern is not None:
                    paths.setdefault(path, {})[method] = _refer(item[method], renamed)
    for path, item in OPERATIONS.items():
        held = next((known for known in paths if _shape(known) == _shape(path)), path)
        for method, operation in item.items():
            theirs = paths.get(held, {}).get(method, {})
            responses = {**theirs.get("responses", {}), **operation["responses"]}
            paths.setdefault(held, {})[method] = {**theirs, **operation, "responses": responses}
    for path, item in paths.items():
        paths[path] = {method: _finish(operation, method, path) for method, operation in item.items()}
    return {**_HEAD, "paths": dict(sorted(paths.items())), "components": _components(paths, schemas)}


def _adopt(schemas: Json, service: str, theirs: Mapping[str, Any]) -> dict[str, str]:
    """Take a service's schemas in, without "View" in their names.

    A schema that the gateway defines itself takes precedence; another schema whose name is already used for
    something else is renamed.
    """
    plain = {name: _short(name, theirs) for name in theirs}
    meant = {short: _refer(theirs[name], plain) for name, short in plain.items()}
    taken = {
        short
        for short, schema in meant.items()
        if schemas.get(short, _with_nulls(schema)) != _with_nulls(schema)
    } - SHARED
    renamed = {
        name: f"{service.capitalize()}{short}" if short in taken else short for name, short in plain.items()
    }
    for name, schema in theirs.items():
        if renamed[name] not in SHARED:
            schemas[renamed[name]] = _with_nulls(_refer(schema, renamed))
    return renamed


def _with_nulls(schema: Json) -> Json:
    """`schema` with the nulls of its examples restored, which FastAPI omits."""
    empty = dict.fromkeys(schema.get("required", ()))
    examples = [empty | one if isinstance(one, dict) else one for one in schema.get("examples", ())]
    return {**schema, "examples": examples} if examples else schema


def _short(name: str, others: Mapping[str, Any]) -> str:
    short = name.removesuffix("View")
    return name if short in others else short or name


def _refer(node: Any, renamed: Mapping[str, str]) -> Any:
    """`node` with references to schemas by their new names, without titles derived from names."""
    if isinstance(node, list):
        return [_refer(one, renamed) for one in node]
    if not isinstance(node, dict):
        return node
    titled = isinstance(node.get("title"), str)
    out = {
        name: value if name in _VALUES else _refer(value, renamed)
        for name, value in node.items()
        if not (titled and name == "title")
    }
    ref = out.get("$ref")
    if isinstance(ref, str) and ref.startswith(_REF):
        name = ref.removeprefix(_REF)
        out["$ref"] = _REF + renamed.get(name, name)
    return out


def _finish(operation: Json, method: str, path: str) -> Json:
    """Add what every operation has: a summary, a tag, the required scope, its problems."""
    line = (method, _shape(path))
    rule = _RULES.get(line)
    idempotency = "required" if line == _PLEDGING else rule.idempotency if rule else "none"
    scope = rule.scope if rule else "pledges"
    keyless = method == "get" and _shape(path) in _KEYLESS
    security = operation.get("security", [] if keyless else [{"key": [scope]}])
    parameters = [
        _plain(one) for one in operation.get("parameters", ()) if one["name"].lower() != "idempotency-key"
    ]
    if idempotency != "none":
        parameters.append({**IDEMPOTENCY_KEY, "required": idempotency == "required"})
    operation = {**operation, "parameters": parameters}
    summary, _, description = str(operation.get("description", "")).partition("\n\n")
    scope = security[-1]["key"][0] if security else scope
    scoped = f"Needs a key with the scope `{scope}`." if security and {} not in security else ""
    kinds = added_problems(operation, keyed=bool(security), idempotency=idempotency, path=path)
    kinds += operation.pop("x-problems", ())
    return {
        **operation,
        "tags": [tag_of(path)],
        "summary": " ".join(summary.split()).removesuffix("."),
        "description": "\n\n".join(part for part in (_unwrapped(description), scoped) if part),
        "responses": _responses(operation, kinds, replayed=idempotency != "none"),
        "security": security,
    }


def _responses(operation: Json, kinds: Iterable[type[Problem]], *, replayed: bool) -> Json:
    """An operation's responses, with the problems of the service and of the gateway by status."""
    problems: dict[str, dict[str, str]] = {}
    found: Json = {}
    for status, response in operation.get("responses", {}).items():
        if "x-problems" in response:
            problems.setdefault(status, {}).update(response["x-problems"])
        elif status < "400":
            found[status] = response
            if replayed and status.startswith("2"):
                found[status] = {**response, "headers": REPLAYED}
    for kind in kinds:
        problems.setdefault(str(kind.status), {})[kind.slug] = kind.title
    for status, titles in sorted(problems.items()):
        found[status] = problem_response(sorted(titles.items()), int(status))
    return {**found, "default": UNFORESEEN}


def _plain(parameter: Json) -> Json:
    """A parameter without the title that FastAPI derives from its name."""
    schema = {name: value for name, value in parameter["schema"].items() if name != "title"}
    return {**parameter, "schema": schema}


def _unwrapped(text: str) -> str:
    """The text with each paragraph on one line, except lists, whose line breaks are kept."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _components(paths: Json, schemas: Json) -> Json:
    """The schemas that are referred to, and the security scheme."""
    wanted: set[str] = set()
    left = _refs(paths)
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left |= _refs(schemas[name])
    key = {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "`ak_admin_…` runs the installation and has every scope. `sk_live_…` and `sk_test_…` are a "
            "partner's, with scopes. `pk_live_…` and `pk_test_…` may be published: they create pledges and "
            "read, from the origins on their list."
        ),
    }
    return {"schemas": {name: schemas[name] for name in sorted(wanted)}, "securitySchemes": {"key": key}}


def _refs(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(_refs(one) for one in node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*(_refs(value) for value in node.values()))
    ref = node.get("$ref")
    return found | {ref.removeprefix(_REF)} if isinstance(ref, str) and ref.startswith(_REF) else found


_HEAD: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Ataa",
        "version": VERSION,
        "summary": "The backend of live donation drives.",
        "description": (
            "Pledges, payments, and totals that follow them within a second.\n\n"
            '- An amount is a decimal string with its currency: `{"currency": "USD", "value": "25.00"}`.\n'
            "- Times are RFC 3339, in UTC.\n"
            "- Errors are `application/problem+json` (RFC 9457), identified by their `type`.\n"
            "- Send your key as `Authorization: Bearer …`; live reads need none.\n\n"
            "[API guide](/docs/guide) · [Events](/events)"
        ),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "/"}],
    "tags": TAGS,
}
