"""The payment processor's protocol: its calls, results and errors.

The errors distinguish whether an operation certainly did not happen (`Refused`, `TooFast`,
`Unavailable`) or may have happened (`Unknown`). Only the former allows a new idempotency key.
Amounts are ISO minor units; an implementation converts them to the processor's units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from backbone.money import Money
from services.payments.domain import FactKind, Observation


@dataclass(frozen=True, slots=True)
class CheckoutRequest:
    """The payment that a checkout is opened for, and its donor's details."""

    payment_id: str
    pledge_id: str
    drive_id: str
    amount: Money
    mode: Literal["hosted", "embedded"]
    title: str
    slug: str
    return_url: str | None
    email: str | None
    locale: str | None
    made_at: datetime
    test: bool = False
    """Whether the drive is a test drive: no real card may be charged."""


@dataclass(frozen=True, slots=True)
class OpenedCheckout:
    """An open checkout session; a hosted one has a `url`, an embedded one a `client_secret`."""

    session_id: str
    url: str | None
    client_secret: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A Payment Link of a fixed amount that is to be prepared for a drive; `key` goes into its metadata."""

    key: str
    drive_id: str
    amount: Money
    title: str
    slug: str
    test: bool


@dataclass(frozen=True, slots=True)
class CreatedLink:
    """A Payment Link at the processor."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class ListedCheckout:
    """A checkout session from a listing, with the payment its metadata names."""

    payment_id: str | None
    checkout: OpenedCheckout
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProcessorEvent:
    """An event as the processor sent or listed it; `body` is JSON in UTF-8."""

    id: str
    type: str
    created_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Foreign:
    """A payment intent that is not ours: neither it nor its checkout carries our metadata."""

    capture: Observation | None
    """Its capture; None where it was not captured."""


@dataclass(frozen=True, slots=True)
class ListedFact:
    """A fact from a listing; `ours` where its payment intent carries our metadata.

    `capture` is the capture of that intent, where the listing contains the intent and it is paid.
    """

    observation: Observation
    capture: Observation | None
    ours: bool


@dataclass(frozen=True, slots=True)
class ListedFacts:
    """One page of facts. `unreadable` names objects of ours that were not readable; `after` the next page."""

    facts: Sequence[ListedFact]
    unreadable: Sequence[str]
    after: str | None


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An address that the processor sends events to, and their types (`*`: all)."""

    url: str
    enabled: bool
    types: frozenset[str]


@dataclass(frozen=True, slots=True)
class Movement:
    """A balance transaction: `amount` without `fee`, in ISO minor units of the settlement currency.

    `intent` is the payment intent of its charge, refund or dispute. `exchange_rate` is what the processor
    reported, as text; nothing is computed with it.
    """

    id: str
    type: str
    source: str | None
    intent: str | None
    amount: int
    fee: int
    currency: str
    exchange_rate: str | None
    created_at: datetime
    available_on: datetime

    @property
    def net(self) -> int:
        """What it adds to the balance."""
        return self.amount - self.fee


@dataclass(frozen=True, slots=True)
class MovementPage:
    """One page, newest first. `unreadable` names those that cannot be read; `after` the next page."""

    movements: Sequence[Movement]
    unreadable: Sequence[str]
    after: str | None


@dataclass(frozen=True, slots=True)
class PayoutState:
    """A payout as the processor reports it.

    `lines`: whether its balance transactions are complete; None where the processor assigns none to it
    (a manual payout).
    """

    id: str
    amount: int
    currency: str
    status: str
    arrival_at: datetime
    created_at: datetime
    lines: bool | None


class ProcessorError(Exception):
    """A call that did not return what was requested."""


class Refused(ProcessorError):
    """It certainly did not happen, and will not with these parameters; `parameter` names the refused one."""

    def __init__(self, reason: str, parameter: str | None = None) -> None:
        super().__init__(reason)
        self.parameter = parameter


class TooFast(ProcessorError):
    """It certainly did not happen: the rate limit was hit. Repeat the call later, at a lower rate."""


class Unavailable(ProcessorError):
    """It certainly did not happen, for a fault of the installation (a revoked key, missing permissions)."""


class Unknown(ProcessorError):
    """It may have happened: repeat it under the same key. `replayed`: the key replays a stored error."""

    def __init__(self, reason: str, *, replayed: bool = False) -> None:
        super().__init__(reason)
        self.replayed = replayed


class Processor(Protocol):
    """A payment processor. Every call raises `ProcessorError` and nothing else, within its timeout."""

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        """The exact parameters that open this checkout, to be stored and sent verbatim.

        `without` names parameters refused before. Raises `Refused` for what cannot be sent at all: an
        unsupported amount, a refused parameter that is required, a test drive under a live key.
        """
        ...

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        """Open a checkout under an idempotency key."""
        ...

    def link_parameters(self, request: LinkRequest) -> dict[str, Any]:
        """The exact parameters that create this Payment Link. Raises `Refused` for what cannot be sent."""
        ...

    def link_address(self, url: str, reference: str, locale: str | None) -> str:
        """A link's address for one donor: whoever pays there pays with this reference."""
        ...

    async def create_link(self, key: str, parameters: Mapping[str, Any]) -> CreatedLink:
        """Create a Payment Link under an idempotency key; it is active."""
        ...

    async def set_link_active(self, link_id: str, active: bool) -> None:
        """Activate or deactivate a Payment Link. Repeating it changes nothing."""
        ...

    async def expire_checkout(self, session_id: str) -> None:
        """Expire an open checkout, so that nobody can pay it. Raises `Refused` where it is not open."""
        ...

    async def read_checkout(self, session_id: str) -> Observation | None:
        """What a checkout reports now: its capture, or that it ended unpaid.

        None while it is open, or its payment is still being processed. Raises `Refused` where it does not
        exist.
        """
        ...

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        """One page of the checkouts created at or after `since`, newest first, and the next page."""
        ...

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        """The exact parameters of a refund. Raises `Refused` for an unsupported amount."""
        ...

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        """Refund under an idempotency key."""
        ...

    async def list_refunds(self, intent: str) -> list[Observation]:
        """All refunds of a payment intent (at most a few hundred)."""
        ...

    async def list_disputes(self, intent: str) -> list[Observation]:
        """All disputes of a payment intent, reported at the time of the response by the processor's clock."""
        ...

    async def find_capture(self, intent: str) -> Observation | Foreign | None:
        """The capture of a payment intent of ours; None where it was not captured or does not exist.

        Our ids come from the intent's metadata, or from its checkout session's.
        """
        ...

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        """One page of the events since `since` whose deliveries all failed, and the next page."""
        ...

    async def list_facts(
        self, kind: FactKind, since: datetime, until: datetime, after: str | None
    ) -> ListedFacts:
        """One page of the captures, refunds or disputes created from `since` to `until`, newest first."""
        ...

    async def read_fact(self, kind: FactKind, fact_id: str) -> ListedFact | None:
        """A refund or dispute in its current state; None where it does not exist."""
        ...

    async def list_movements(
        self, after: str | None, *, since: datetime | None = None, payout: str | None = None
    ) -> MovementPage:
        """One page of balance transactions: those created at or after `since`, or those of a payout."""
        ...

    async def read_payout(self, payout_id: str) -> PayoutState | None:
        """A payout in its current state; None where it does not exist."""
        ...

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        """The webhook endpoints (at most 1,000). Raises `Unavailable` where the key may not read them."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
