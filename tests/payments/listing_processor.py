"""A processor that lists Stripe's objects in their current state, page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from backbone.clock import Clock
from services.payments.domain import FactKind
from services.payments.processor import (
    ListedFact,
    ListedFacts,
    ProcessorError,
    ProcessorEvent,
    Refused,
    WebhookEndpoint,
)
from services.payments.stripe.lists import listed
from tests.payments.fake_processor import FakeProcessor


class ListingProcessor(FakeProcessor):
    """Lists `objects` in pages of `page`; `failure` may raise instead; `calls` are the lists requested."""

    def __init__(self, clock: Clock, page: int = 100) -> None:
        super().__init__()
        self.clock = clock
        self.page = page
        self.objects: dict[FactKind, list[dict[str, Any]]] = {kind: [] for kind in FactKind}
        self.calls: list[tuple[FactKind, str | None]] = []
        self.read: list[str] = []
        self.failure: Callable[[FactKind, str | None], ProcessorError | None] = lambda kind, after: None
        self.endpoints: list[WebhookEndpoint] = []

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        return [], None

    async def list_facts(
        self, kind: FactKind, since: datetime, until: datetime, after: str | None
    ) -> ListedFacts:
        self.calls.append((kind, after))
        if (failure := self.failure(kind, after)) is not None:
            raise failure
        within = [
            each
            for each in self.objects[kind]
            if int(since.timestamp()) <= each["created"] <= int(until.timestamp())
        ]
        within.sort(key=lambda each: (each["created"], each["id"]), reverse=True)
        if after is not None:
            places = [place for place, each in enumerate(within) if each["id"] == after]
            if not places:
                raise Refused("No such object", "starting_after")
            within = within[places[0] + 1 :]
        more = len(within) > self.page
        return listed(
            kind, within[: self.page], within[self.page - 1]["id"] if more else None, datetime.now(UTC)
        )

    async def read_fact(self, kind: FactKind, fact_id: str) -> ListedFact | None:
        self.read.append(fact_id)
        found = [each for each in self.objects[kind] if each["id"] == fact_id]
        return next(iter(listed(kind, found, None, datetime.now(UTC)).facts), None)

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        return self.endpoints

    def ago(self, **past: float) -> int:
        """The Unix time that long ago."""
        return int((self.clock.now() - timedelta(**past)).timestamp())

    def intent(self, intent: str, units: int, ours: dict[str, str], **other: Any) -> dict[str, Any]:
        """A paid payment intent that is listed, created ten minutes ago."""
        thing = {
            "id": intent, "status": "succeeded", "amount_received": units, "currency": "usd",
            "metadata": ours, "created": self.ago(minutes=10),
        } | other  # fmt: skip
        self.objects[FactKind.CAPTURE].append(thing)
        return thing

    def refund(  # type: ignore[override]
        self, refund: str, intent: Any, units: int, status: str, **other: Any
    ) -> dict[str, Any]:
        """A refund that is listed, created ten minutes ago."""
        return self._of(FactKind.REFUND, refund, intent, units, status, other)

    def dispute(self, dispute: str, intent: Any, units: int, status: str, **other: Any) -> dict[str, Any]:
        """A dispute that is listed, created ten minutes ago."""
        return self._of(FactKind.DISPUTE, dispute, intent, units, status, other)

    def _of(
        self, kind: FactKind, fact: str, intent: Any, units: int, status: str, other: dict[str, Any]
    ) -> dict[str, Any]:
        thing = {
            "id": fact, "payment_intent": intent, "amount": units, "currency": "usd", "status": status,
            "created": self.ago(minutes=10), "metadata": {},
        } | other  # fmt: skip
        self.objects[kind].append(thing)
        return thing
