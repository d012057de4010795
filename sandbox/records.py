"""The rows behind Stripe's objects; their fields are in the order of the table's columns."""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

Json = dict[str, Any]


class Session(NamedTuple):
    """A Checkout Session: `requested` are its parameters, `donor` the payer (both JSON in the journal)."""

    n: int
    id: str
    created: int
    expires_at: int
    status: str
    amount: int
    currency: str
    payment: str | None
    requested: Json
    donor: Json | None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Session:
        donor = json.loads(row[-1]) if row[-1] else None
        return cls._make((*row[:-2], json.loads(row[-2]), donor))


class PaymentLink(NamedTuple):
    """A Payment Link; `requested` are its parameters (JSON in the journal)."""

    n: int
    id: str
    created: int
    active: bool
    requested: Json

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> PaymentLink:
        n, link_id, created, active, requested = row
        return cls(n, link_id, created, bool(active), json.loads(requested))


class Payment(NamedTuple):
    """A PaymentIntent with its one possible charge; `currency` in upper case, amounts in minor units."""

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
    """A refund; `amount` in Stripe's minor units."""

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
    """A dispute; amounts in Stripe's minor units.

    `moved` are its balance transactions in the currency `settled_in` (negative: withdrawn, positive:
    returned); `withdrawn` is what they have withdrawn in total.
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
    withdrawn: int

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Dispute:
        *plain, moved, withdrawn = row
        return cls._make((*plain, json.loads(moved), withdrawn))


class Payout(NamedTuple):
    """A payout to the bank; `amount` in Stripe's minor units."""

    n: int
    id: str
    created: int
    amount: int
    currency: str
    status: str


def new_id(prefix: str) -> str:
    """A new id such as `pi_019ac…`; it begins with the time, so that indexes grow at their end."""
    return f"{prefix}{time.time_ns() // 1_000_000:011x}{os.urandom(7).hex()}"
