"""Stripe's form encoding: `a[b][0][c]=d` as nested dictionaries, and readers that refuse bad values.

Arrays become dictionaries keyed by their index; `entries` gives their values in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from sandbox.refusals import invalid, missing_parameter

MOST_PAIRS: Final = 1000
DEEPEST: Final = 8


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
    """The parameters of a form body or query string. Raises Refusal for names that nest impossibly."""
    params: dict[str, Any] = {}
    if not text:
        return params
    pairs = text.split("&")
    if len(pairs) > MOST_PAIRS:
        raise invalid("Too many parameters.")
    for pair in pairs:
        raw_key, _, value = pair.partition("=")
        if "%" in value or "+" in value:
            value = unquote_plus(value)
        path = _path(raw_key)
        if len(path) > DEEPEST:
            raise invalid(f"Parameter nested too deeply: {path[0]}", path[0])
        _place(params, path, value)
    return params


def _place(params: dict[str, Any], path: tuple[str, ...], value: str) -> None:
    place = params
    for step in path[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise invalid(f"Invalid parameter: {path[0]}", path[0])
    last = path[-1] or str(len(place))  # `expand[]=x` appends
    if isinstance(place.get(last), dict):
        raise invalid(f"Invalid parameter: {path[0]}", path[0])
    place[last] = value


def text(params: dict[str, Any], name: str, within: str = "") -> str | None:
    """A string parameter; empty counts as absent, as with Stripe."""
    value = params.get(name)
    if isinstance(value, dict):
        raise invalid(f"Invalid string: {full_name(name, within)}", full_name(name, within))
    return value or None


def required_text(params: dict[str, Any], name: str, within: str = "") -> str:
    """A parameter that must be there; raises Refusal 400."""
    value = text(params, name, within)
    if value is None:
        raise missing_parameter(full_name(name, within))
    return value


def integer(params: dict[str, Any], name: str, within: str = "") -> int | None:
    """A whole number in ASCII digits, or None when absent."""
    value = text(params, name, within)
    if value is None:
        return None
    if not value.isascii() or not value.removeprefix("-").isdigit() or len(value) > 18:
        param = full_name(name, within)
        raise invalid(f"Invalid integer: {value[:40]}", param, "parameter_invalid_integer")
    return int(value)


def boolean(params: dict[str, Any], name: str) -> bool | None:
    """`true` or `false`, None where absent; raises Refusal 400 for anything else."""
    value = text(params, name)
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value[:40]}", name)
    return value.lower() == "true"


def group(params: dict[str, Any], name: str, within: str = "") -> dict[str, Any]:
    """A nested group of parameters; empty when absent."""
    value = params.get(name)
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {full_name(name, within)}", full_name(name, within))
    return value


def entries(params: dict[str, Any], name: str) -> list[Any]:
    """An array's values in order; empty when absent."""
    return list(group(params, name).values())


def metadata(params: dict[str, Any], within: str = "") -> dict[str, str]:
    """At most 50 pairs of 40 and 500 characters (https://docs.stripe.com/metadata)."""
    param = full_name("metadata", within)
    pairs = group(params, "metadata", within)
    if len(pairs) > 50:
        raise invalid("Metadata can have up to 50 keys.", param)
    for key, value in pairs.items():
        if not isinstance(value, str) or len(key) > 40 or len(value) > 500:
            raise invalid("Metadata keys hold 40 characters and values 500.", f"{param}[{key[:40]}]")
    return pairs


def choice(params: dict[str, Any], name: str, allowed: Iterable[str], default: str | None) -> str | None:
    """One of `allowed`, `default` where absent; raises Refusal 400 for anything else."""
    value = text(params, name)
    if value is None:
        return default
    if value not in allowed:
        raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
    return value


def full_name(name: str, within: str) -> str:
    """A parameter as Stripe names it in errors: `within[name]`."""
    return f"{within}[{name}]" if within else name
