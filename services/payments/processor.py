"""What payments asks of a payment processor, and how its answers are told apart.

The one distinction that matters is whether something certainly did not happen (`Refused`,
`TooFast`, `Unavailable`) or may have (`Unknown`): only the first allows a new idempotency key.
Amounts are ISO minor units here; a processor that counts otherwise converts at its own door.
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
    """What a checkout is to be opened for."""

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
    """Whether it is a gift to a test drive: no real card may be charged."""


@dataclass(frozen=True, slots=True)
class OpenedCheckout:
    """A live checkout; a hosted one has a `url`, an embedded one a `client_secret`."""

    session_id: str
    url: str | None
    client_secret: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ListedCheckout:
    """A checkout as a listing shows it, with the payment its metadata names."""

    payment_id: str | None
    checkout: OpenedCheckout
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProcessorEvent:
    """An event as the processor sent or listed it, to be kept; `body` is JSON in UTF-8."""

    id: str
    type: str
    created_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Foreign:
    """A payment intent of other business: neither it nor its checkout carries a mark of ours."""

    capture: Observation | None
    """Its capture; None where it was not captured."""


@dataclass(frozen=True, slots=True)
class ListedFact:
    """A fact as a listing shows it: `ours` where its payment intent carries our metadata.

    `capture` is what that intent itself says, where the listing shows it and it is paid.
    """

    observation: Observation
    capture: Observation | None
    ours: bool


@dataclass(frozen=True, slots=True)
class ListedFacts:
    """One page of facts; `unreadable` says what of ours could not be read, `after` where the next begins."""

    facts: Sequence[ListedFact]
    unreadable: Sequence[str]
    after: str | None


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Where the processor sends events, and which (`*`: all)."""

    url: str
    enabled: bool
    types: frozenset[str]


class ProcessorError(Exception):
    """A call that did not answer with what was asked for."""


class Refused(ProcessorError):
    """It certainly did not happen, and will not with these parameters; `parameter` names the culprit."""

    def __init__(self, reason: str, parameter: str | None = None) -> None:
        super().__init__(reason)
        self.parameter = parameter


class TooFast(ProcessorError):
    """It certainly did not happen: the rate limit was hit; the same call again, later and slower."""


class Unavailable(ProcessorError):
    """It certainly did not happen and it is nobody's fault but the installation's (a key withdrawn)."""


class Unknown(ProcessorError):
    """It may have happened: the same key again. `replayed`: the key answers with a stored error for ever."""

    def __init__(self, reason: str, *, replayed: bool = False) -> None:
        super().__init__(reason)
        self.replayed = replayed


class Processor(Protocol):
    """A payment processor. Every call raises `ProcessorError` and nothing else, within its timeout."""

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        """The exact parameters that open this checkout, to be stored and sent verbatim.

        `without` names parameters refused before; raises `Refused` for what cannot be sent at all
        (an amount the processor does not take, a parameter that cannot be left out, a test drive's gift
        where real cards are charged).
        """
        ...

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        """Open a checkout under an idempotency key."""
        ...

    async def expire_checkout(self, session_id: str) -> None:
        """Close an open checkout, so that it can no longer be paid; `Refused` where it is not open."""
        ...

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        """One page of the checkouts created at or after `since`, newest first, and where the next begins."""
        ...

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        """The exact parameters of a refund; raises `Refused` for an amount it does not take."""
        ...

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        """Refund under an idempotency key."""
        ...

    async def list_refunds(self, intent: str) -> list[Observation]:
        """All refunds of a payment intent (at most a few hundred)."""
        ...

    async def list_disputes(self, intent: str) -> list[Observation]:
        """All disputes of a payment intent, as told at the time of asking by the processor's clock."""
        ...

    async def find_capture(self, intent: str) -> Observation | Foreign | None:
        """The capture of a payment intent of ours, None where it was not captured or is not known.

        The ids of ours are those of the intent, or of the checkout it came from.
        """
        ...

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        """One page of the events since `since` that no delivery succeeded for, and where the next begins."""
        ...

    async def list_facts(
        self, kind: FactKind, since: datetime, until: datetime, after: str | None
    ) -> ListedFacts:
        """One page of the captures, refunds or disputes created from `since` to `until`, newest first."""
        ...

    async def read_fact(self, kind: FactKind, fact_id: str) -> ListedFact | None:
        """A refund or dispute as it is now; None where it is not known or not readable."""
        ...

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        """Where events are sent (the first thousand); `Unavailable` where the key may not read it."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
