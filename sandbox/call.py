"""A request of the pretended Stripe, as its operations see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the operations see it: decoded parameters, the id of the address, who asked."""

    params: dict[str, Any]
    target: str = ""
    request_id: str | None = None
    idempotency_key: str | None = None
