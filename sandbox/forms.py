"""Stripe's form encoding: `a[b][0][c]=d` as nested dictionaries, and readers that validate values.

Arrays become dictionaries keyed by their index; `entries` gives their values in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from sandbox.errors import invalid, missing_parameter

MAX_PAIRS: Final = 1000
MAX_DEPTH: Final = 8


@lru_cache(maxsize=4096)
def _path(raw_key: str) -> tuple[str, ...]:
    """`line_items[0][quantity]`, percent-encoded or not, as `("line_items", "0", "quantity")`."""
    key = unquote_plus(raw_key)
    head, bracket, rest = key.partition("[")
    if not bracket:
        return (head,)
    if not rest.endswith("]"):
        raise invalid(f"Invalid parameter name: {key[:80]}", key[:80])
    return (head, *rest[:-1].split("]["))


def decode(text: str) -> dict[str, Any]:
    """Decode a form body or query string. Raises ApiError (400) for contradictory or too deep names."""
    params: dict[str, Any] = {}
    if not text:
        return params
    pairs = text.split("&")
    if len(pairs) > MAX_PAIRS:
        raise invalid("Too many parameters.")
    for pair in pairs:
        raw_key, _, value = pair.partition("=")
        if "%" in value or "+" in value:
            value = unquote_plus(value)
        path = _path(raw_key)
        if len(path) > MAX_DEPTH:
            raise invalid(f"Parameter nested too deeply: {path[0]}", path[0])
        _insert(params, path, value)
    return params


def _insert(params: dict[str, Any], path: tuple[str, ...], value: str) -> None:
    node = params
    for step in path[:-1]:
        node = node.setdefault(step, {})
        if not isinstance(node, dict):
            raise invalid(f"Invalid parameter: {path[0]}", path[0])
    last = path[-1] or str(len(node))  # `expand[]=x` appends
    if isinstance(node.get(last), dict):
        raise invalid(f"Invalid parameter: {path[0]}", path[0])
    node[last] = value


def text(params: dict[str, Any], name: str, within: str = "") -> str | None:
    """A string parameter; an empty one counts as absent, as at Stripe."""
    value = params.get(name)
    if isinstance(value, dict):
        raise invalid(f"Invalid string: {full_name(name, within)}", full_name(name, within))
    return value or None


def required_text(params: dict[str, Any], name: str, within: str = "") -> str:
    """A required string parameter. Raises ApiError (400) when it is missing."""
    value = text(params, name, within)
    if value is None:
        raise missing_parameter(full_name(name, within))
    return value


def integer(params: dict[str, Any], name: str, within: str = "") -> int | None:
    """An integer in ASCII digits, None when absent. Raises ApiError (400) for anything else."""
    value = text(params, name, within)
    if value is None:
        return None
    if not value.isascii() or not value.removeprefix("-").isdigit() or len(value) > 18:
        param = full_name(name, within)
        raise invalid(f"Invalid integer: {value[:40]}", param, "parameter_invalid_integer")
    return int(value)


def boolean(params: dict[str, Any], name: str) -> bool | None:
    """`true` or `false`, None when absent. Raises ApiError (400) for anything else."""
    value = text(params, name)
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value[:40]}", name)
    return value.lower() == "true"


def group(params: dict[str, Any], name: str, within: str = "") -> dict[str, Any]:
    """A nested object of parameters; empty when absent."""
    value = params.get(name)
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {full_name(name, within)}", full_name(name, within))
    return value


def entries(params: dict[str, Any], name: str) -> list[Any]:
    """The values of an array in order; empty when absent."""
    return list(group(params, name).values())


def metadata(params: dict[str, Any], within: str = "") -> dict[str, str]:
    """At most 50 pairs with keys of 40 and values of 500 characters (https://docs.stripe.com/metadata)."""
    param = full_name("metadata", within)
    pairs = group(params, "metadata", within)
    if len(pairs) > 50:
        raise invalid("Metadata can have up to 50 keys.", param)
    for key, value in pairs.items():
        if not isinstance(value, str) or len(key) > 40 or len(value) > 500:
            raise invalid(
                "Metadata keys have at most 40 characters, values at most 500.", f"{param}[{key[:40]}]"
            )
    return pairs


def choice(params: dict[str, Any], name: str, allowed: Iterable[str], default: str | None) -> str | None:
    """One of `allowed`, `default` when absent. Raises ApiError (400) for anything else."""
    value = text(params, name)
    if value is None:
        return default
    if value not in allowed:
        raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
    return value


def full_name(name: str, within: str) -> str:
    """A parameter as Stripe names it in errors: `within[name]`."""
    return f"{within}[{name}]" if within else name
