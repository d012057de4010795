"""A processor for tests that responds to lookups; tests override the other calls they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from backbone.money import Money
from services.payments.domain import Observation
from services.payments.processor import (
    CheckoutRequest,
    ListedCheckout,
    MovementPage,
    OpenedCheckout,
    PayoutState,
    ProcessorEvent,
    Unknown,
)


class FakeProcessor:
    """A processor that responds to lookups from its fields; `looked_up` lists the intents looked up."""

    def __init__(self) -> None:
        self.captures: dict[str, Observation] = {}
        self.refunds: dict[str, list[Observation]] = {}
        self.disputes: dict[str, list[Observation]] = {}
        self.looked_up: list[str] = []
        self.unavailable = False

    async def find_capture(self, intent: str) -> Observation | None:
        self._note(intent)
        return self.captures.get(intent)

    async def list_refunds(self, intent: str) -> list[Observation]:
        self._note(intent)
        return self.refunds.get(intent, [])

    async def list_disputes(self, intent: str) -> list[Observation]:
        self._note(intent)
        return self.disputes.get(intent, [])

    def _note(self, intent: str) -> None:
        self.looked_up.append(intent)
        if self.unavailable:
            raise Unknown("no answer")

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        raise AssertionError("the test does not expect this call")

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        raise AssertionError("the test does not expect this call")

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        raise AssertionError("the test does not expect this call")

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        raise AssertionError("the test does not expect this call")

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        raise AssertionError("the test does not expect this call")

    async def expire_checkout(self, session_id: str) -> None:
        raise AssertionError("the test does not expect this call")

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        raise AssertionError("the test does not expect this call")

    async def list_movements(
        self, after: str | None, *, since: datetime | None = None, payout: str | None = None
    ) -> MovementPage:
        return MovementPage([], [], None)

    async def read_payout(self, payout_id: str) -> PayoutState | None:
        raise AssertionError("the test does not expect this call")

    async def close(self) -> None:
        return
