"""The rows behind Stripe's objects, in the order of their columns."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

Json = dict[str, Any]


class Session(NamedTuple):
    """A Checkout Session. `wish` and `donor` are JSON: what was asked for, and who paid."""

    n: int
    id: str
    created: int
    expires_at: int
    status: str
    amount: int
    currency: str
    payment: str | None
    wish: str
    donor: str | None


class Payment(NamedTuple):
    """A PaymentIntent with its one possible charge. `currency` is upper case, amounts are minor units."""

    n: int
    id: str
    created: int
    status: str
    amount: int
    currency: str
    fee: int
    session: str
    pledge: str | None
    metadata: str
    card: str
    donor: str
    failure: str | None

    @property
    def captured(self) -> bool:
        return self.status == "succeeded"

    @property
    def charge(self) -> str:
        return "ch_" + self.id[3:]


class Refund(NamedTuple):
    n: int
    id: str
    created: int
    payment: str
    amount: int
    currency: str
    status: str
    reason: str | None
    metadata: str


class Dispute(NamedTuple):
    n: int
    id: str
    created: int
    payment: str
    amount: int
    currency: str
    status: str


def new_id(prefix: str) -> str:
    """A fresh id such as `pi_019ac…`: milliseconds first, so that indexes grow at their end."""
    return f"{prefix}{time.time_ns() // 1_000_000:011x}{os.urandom(7).hex()}"
