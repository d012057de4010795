"""A request to the simulated API, as its operations receive it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One decoded request: its parameters, the id in its path, its request id and idempotency key."""

    params: dict[str, Any]
    target: str = ""
    request_id: str | None = None
    idempotency_key: str | None = None
