"""Content negotiation: the weighted lists of `Accept-Encoding` and `Accept-Language`."""

from __future__ import annotations

from functools import lru_cache


def weighted(header: str) -> list[tuple[str, float]]:
    """The elements of an `Accept-…` header in lower case with their weights, in the order of the header.

    The weight is the parameter `q` from 0 to 1 (RFC 9110, 12.4.2), 1 where there is none and 0 where it is
    not a number.
    """
    return [_element(part) for part in header.split(",") if part.strip()]


def _element(part: str) -> tuple[str, float]:
    name, _, parameters = part.partition(";")
    weight = 1.0
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
    return name.strip().lower(), weight


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether `Accept-Encoding` names gzip with a weight above 0 (RFC 9110, 12.5.3)."""
    return any(name == "gzip" and weight > 0 for name, weight in weighted(accept_encoding or ""))
