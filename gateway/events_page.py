"""`/events`: a page that documents the events the services exchange.

Names, topics, keys, fields and schemas come from `backbone.contracts`. The examples are the frozen samples
that every later version must be able to decode.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import backbone.contracts.leaderboard
import backbone.contracts.payments
import backbone.contracts.pledges
from backbone.contracts import Event, wire_names
from gateway.http.asgi import Header, Request, Response
from gateway.http.conditional import not_modified, strong_etag
from gateway.http.router import Route, page_routes
from gateway.pages import asset_url

_STATIC: Final = Path(__file__).parent / "events_static"
_EXAMPLES: Final = Path(__file__).parent / "event_examples.json"
_PRODUCERS: Final = (backbone.contracts.pledges, backbone.contracts.payments, backbone.contracts.leaderboard)
_POLICY: Final = (
    b"default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
_REF: Final = "#/$defs/"
_CODE: Final = re.compile("`([^`]*)`")
_MONEY: Final = "money: minor units and currency"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field of an event: its type, and its meaning if the contract documents it."""

    name: str
    holds: str
    optional: bool
    values: tuple[str, ...]
    about: str


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as the page shows it."""

    name: str
    topic: str
    key: str
    about: str
    fields: tuple[FieldView, ...]
    example: str
    schema: str


def events_routes() -> list[Route]:
    """The page, its style, and each event's JSON Schema."""
    schemas = (
        Route("GET", f"/events/{name}.json", _serve_schema) for _, events in catalogue() for name in events
    )
    return [
        *page_routes("/events", _serve_page),
        Route("GET", "/events/style.css", _serve_style),
        *schemas,
    ]


def catalogue() -> list[tuple[str, dict[str, type[Event]]]]:
    """The events by wire name, under the name of the service that publishes them."""
    found = []
    for producer in _PRODUCERS:
        kinds = {name: kind for name, kind in wire_names().items() if kind.__module__ == producer.__name__}
        found.append((producer.__name__.rpartition(".")[2], kinds))
    return found


@cache
def page() -> bytes:
    """The page, rendered once."""
    loader = FileSystemLoader(_STATIC)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["prose"] = _prose
    environment.globals["asset"] = asset_url
    examples = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    producers = [
        (producer, _about_producer(producer), [_view(kind, examples[name]) for name, kind in kinds.items()])
        for producer, kinds in catalogue()
    ]
    return environment.get_template("events.html").render(producers=producers).encode()


def schema_of(kind: type[Event]) -> Json:
    """The JSON Schema of an event as it is on the wire."""
    return kind.model_json_schema(mode="serialization")


def _prose(text: str) -> Markup:
    """A docstring as HTML: its paragraphs a line each, what is in backticks as code."""
    paragraphs = (" ".join(one.split()) for one in text.split("\n\n"))
    marked = (_CODE.sub(r"<code>\1</code>", str(escape(one))) for one in paragraphs)
    return Markup("<br>").join(Markup(one) for one in marked)


def _about_producer(name: str) -> str:
    producer = next(one for one in _PRODUCERS if one.__name__.endswith(f".{name}"))
    return inspect.cleandoc(producer.__doc__ or "")


def _view(kind: type[Event], example: Json) -> EventView:
    schema = schema_of(kind)
    definitions = schema.get("$defs", {})
    # The order of the example is the order on the wire; fields added after the example follow.
    properties = schema["properties"]
    names = dict.fromkeys((*example, *properties))
    fields = tuple(_field(name, properties[name], definitions) for name in names)
    return EventView(
        name=kind.wire_name,
        topic=kind.topic,
        key=kind.key_field,
        about=inspect.cleandoc(kind.__doc__ or ""),
        fields=fields,
        example=json.dumps(example, indent=2, ensure_ascii=False),
        schema=json.dumps(schema, indent=2, sort_keys=True),
    )


def _field(name: str, schema: Json, definitions: Json) -> FieldView:
    choices = schema.get("anyOf", [schema])
    optional = any(choice.get("type") == "null" for choice in choices)
    held = [choice for choice in choices if choice.get("type") != "null"]
    resolved = [definitions[one["$ref"].removeprefix(_REF)] if "$ref" in one else one for one in held]
    return FieldView(
        name=name,
        holds=" or ".join(dict.fromkeys(_holds(one, name) for one in resolved)),
        optional=optional,
        values=tuple(value for one in resolved for value in one.get("examples", ())),
        about=" ".join(inspect.cleandoc(one["description"]) for one in resolved if "description" in one),
    )


def _holds(schema: Json, name: str) -> str:
    """What a field holds, in short."""
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {schema['items'].get('$ref', 'things').removeprefix(_REF).lower()}s"
    if kind == "object" and _is_money(schema):
        return _MONEY
    if kind == "string" and (name.endswith("_at") or name in ("at", "as_of")):
        return "moment (RFC 3339, UTC)"
    if kind == "string" and name.endswith("_id"):
        return f"id ({name.removesuffix('_id')})"
    plain = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return _object(schema) if kind == "object" else plain.get(kind, kind)


def _is_money(schema: Json) -> bool:
    more = schema.get("additionalProperties")
    kinds = [one.get("type") for one in more.get("anyOf", ())] if isinstance(more, dict) else []
    return kinds == ["integer", "string"]


def _object(schema: Json) -> str:
    inside: Iterable[str] = schema.get("properties", ())
    if inside:
        return f"object: {', '.join(inside)}"
    more = schema.get("additionalProperties")
    return "text by language" if isinstance(more, dict) and more.get("type") == "string" else "object"


async def _serve_page(request: Request) -> Response:
    more: list[Header] = [(b"content-security-policy", _POLICY)]
    return _cached(request, page(), b"text/html; charset=utf-8", more)


async def _serve_style(request: Request) -> Response:
    return _cached(request, _style(), b"text/css; charset=utf-8")


@cache
def _style() -> bytes:
    return (_STATIC / "style.css").read_bytes()


async def _serve_schema(request: Request) -> Response:
    name = request.path.rpartition("/")[2].removesuffix(".json")
    return _cached(request, _schema(name), b"application/schema+json")


@cache
def _schema(name: str) -> bytes:
    """The published schema of the event of this wire name, made once."""
    return json.dumps(schema_of(wire_names()[name]), indent=2, sort_keys=True).encode() + b"\n"


@cache
def _etag(body: bytes) -> str:
    return strong_etag(body)


def _cached(request: Request, body: bytes, kind: bytes, more: Iterable[Header] = ()) -> Response:
    etag = _etag(body)
    headers: list[Header] = [
        (b"content-type", kind),
        (b"etag", etag.encode()),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    return not_modified(request, etag, headers) or Response(200, headers, body)
