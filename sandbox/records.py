"""The rows behind Stripe's objects, in the order of their columns."""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

Json = dict[str, Any]


class Session(NamedTuple):
    """A Checkout Session: `wish` is what was asked for, `donor` who paid (both JSON in the journal)."""

    n: int
    id: str
    created: int
    expires_at: int
    status: str
    amount: int
    currency: str
    payment: str | None
    wish: Json
    donor: Json | None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Session:
        donor = json.loads(row[-1]) if row[-1] else None
        return cls._make((*row[:-2], json.loads(row[-2]), donor))


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
    metadata: Json
    card: str
    donor: Json
    failure: Json | None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Payment:
        *plain, metadata, card, donor, failure = row
        known = json.loads(failure) if failure else None
        return cls._make((*plain, json.loads(metadata), card, json.loads(donor), known))

    @property
    def captured(self) -> bool:
        return self.status == "succeeded"

    @property
    def charge(self) -> str:
        return "ch_" + self.id[3:]


class Refund(NamedTuple):
    """A refund as it is kept; `amount` in Stripe's minor units."""

    n: int
    id: str
    created: int
    payment: str
    amount: int
    currency: str
    status: str
    reason: str | None
    metadata: Json

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Refund:
        return cls._make((*row[:-1], json.loads(row[-1])))


class Dispute(NamedTuple):
    """A dispute as it is kept; amounts in Stripe's minor units.

    `moved` are its balance transactions in `settled_in` (below 0 withdrawn, above returned), `gone`
    what they have taken together.
    """

    n: int
    id: str
    created: int
    payment: str
    amount: int
    currency: str
    status: str
    case_type: str
    settled_in: str
    moved: list[int]
    gone: int

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Dispute:
        *plain, moved, gone = row
        return cls._make((*plain, json.loads(moved), gone))


def new_id(prefix: str) -> str:
    """A fresh id such as `pi_019ac…`: milliseconds first, so that indexes grow at their end."""
    return f"{prefix}{time.time_ns() // 1_000_000:011x}{os.urandom(7).hex()}"
