"""`/openapi.json`: the services' descriptions and the gateway's own, as one document of the whole door."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from backbone.http.service_client import ServiceClient, ServiceUnavailable
from gateway.http.router import Route

_OWN: Final = json.loads((Path(__file__).parent / "openapi_own.json").read_text(encoding="utf-8"))
"""How the gateway's own operations are described: those that no service answers alone."""

_KEYLESS: Final = ("/v1/drives/{}/leaderboards/{}", "/v1/drives/{}/events")
"""Services' operations that need no key."""

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_REF: Final = "#/components/schemas/"
_PARAM: Final = re.compile(r"\{[^}]*\}")

Json = dict[str, Any]


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
    """One document of what `routes` offers, from what each service says of its own part."""
    public = {(route.method.lower(), _shape(route.pattern)): route.pattern for route in routes}
    paths: Json = {}
    schemas: Json = dict(_OWN["schemas"])
    for service, described in services.items():
        renamed = _adopt(schemas, service, described.get("components", {}).get("schemas", {}))
        for path, item in described.get("paths", {}).items():
            for method in _METHODS:
                pattern = public.get((method, _shape(path)))
                if method in item and pattern is not None:
                    operation = _refer(item[method], renamed)
                    paths.setdefault(path, {})[method] = _finish(operation, path)
    for path, item in _OWN["paths"].items():
        held = next((known for known in paths if _shape(known) == _shape(path)), path)
        for method, operation in item.items():
            merged = {**paths.get(held, {}).get(method, {}), **operation}
            paths.setdefault(held, {})[method] = _finish(merged, held)
    return {**_HEAD, "paths": dict(sorted(paths.items())), "components": _components(paths, schemas)}


def _shape(path: str) -> str:
    return _PARAM.sub("{}", path)


def _adopt(schemas: Json, service: str, theirs: Mapping[str, Any]) -> dict[str, str]:
    """Take a service's schemas in; those whose name means something else already get another."""
    clashing = {name for name, schema in theirs.items() if schemas.get(name, schema) != schema}
    renamed = {name: f"{service.capitalize()}{name}" if name in clashing else name for name in theirs}
    for name, schema in theirs.items():
        schemas[renamed[name]] = _refer(schema, renamed)
    return renamed


def _refer(node: Any, renamed: Mapping[str, str]) -> Any:
    """`node` with its references to schemas under their new names."""
    if isinstance(node, list):
        return [_refer(one, renamed) for one in node]
    if not isinstance(node, dict):
        return node
    out = {name: _refer(value, renamed) for name, value in node.items()}
    ref = out.get("$ref")
    if isinstance(ref, str) and ref.startswith(_REF):
        name = ref.removeprefix(_REF)
        out["$ref"] = _REF + renamed.get(name, name)
    return out


def _finish(operation: Json, path: str) -> Json:
    """Add what every operation has: how to call it, and problems for answers."""
    responses = {
        status: {"description": answer.get("description", ""), "content": _PROBLEM}
        if status == "422" or (status >= "400" and "content" not in answer)
        else answer
        for status, answer in operation.get("responses", {}).items()
    }
    responses["default"] = {"description": "A problem (RFC 9457).", "content": _PROBLEM}
    security = operation.get("security", [] if _shape(path) in _KEYLESS else [{"key": []}])
    return {**operation, "responses": responses, "security": security}


def _components(paths: Json, schemas: Json) -> Json:
    """The schemas that anything refers to, and the one way to show a key."""
    wanted: set[str] = set()
    left = _refs(paths)
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left |= _refs(schemas[name])
    return {
        "schemas": {name: schemas[name] for name in sorted(wanted)},
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "ak_admin_…, sk_… or pk_…"}
        },
    }


def _refs(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*(_refs(one) for one in node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*(_refs(value) for value in node.values()))
    ref = node.get("$ref")
    return found | {ref.removeprefix(_REF)} if isinstance(ref, str) and ref.startswith(_REF) else found


_PROBLEM: Final[Json] = {"application/problem+json": {"schema": {"$ref": f"{_REF}Problem"}}}
_HEAD: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Ataa",
        "version": "1",
        "description": (
            "The public door of a live donation drive: pledges, payments and the figures that move while "
            "they come in. Money is a decimal string with its currency, times are RFC 3339 in UTC, errors "
            "are problem documents (RFC 9457). Send your key as `Authorization: Bearer …`."
        ),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "/"}],
}
