"""A Stripe account: what was paid, refunded and disputed, and the events about it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backbone.clock import Clock
from backbone.money import Money
from services.payments.domain import Observation
from services.payments.processor import Refused, Unknown
from services.payments.stripe.objects import refund_observation
from tests.payments import stripe_events
from tests.payments.fake_processor import FakeProcessor
from tests.payments.life.model import FAILED, PENDING, SUCCEEDED, Capture, Dispute, Life

See = Callable[[Life], None]


@dataclass
class Told:
    """An event, and what the model learns from it."""

    body: dict[str, Any]
    see: See


@dataclass
class Refund:
    name: str
    intent: str
    units: int
    status: str
    ours: str | None
    created: int


@dataclass
class Account:
    """What happened at Stripe. `events` are all of its events in order, delivered or not."""

    clock: Clock
    events: list[Told] = field(default_factory=list)
    captures: dict[str, Capture] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)
    """The refund that an idempotency key made."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def now(self) -> int:
        return int(self.clock.now().timestamp())

    def left(self, intent: str) -> int:
        gone = sum(
            each.units for each in self.refunds.values() if each.intent == intent and each.status != FAILED
        )
        return self.captures[intent].units - gone

    def capture(self, capture: Capture, ours: dict[str, str]) -> None:
        self.captures[capture.intent] = capture
        given = (capture.intent, capture.units, ours, capture.currency.lower())
        session = (f"cs_{capture.intent}", *given)
        for body in (stripe_events.session_completed(*session), stripe_events.intent_succeeded(*given)):
            self._tell(body, lambda life: life.see_capture(capture))

    def refund(self, intent: str, units: int, status: str, ours: str | None = None) -> Refund:
        """Refund, by our API (`ours`: our id) or in the dashboard."""
        refund = Refund(f"re_{next(self._numbers)}", intent, units, status, ours, self.now)
        self.refunds[refund.name] = refund
        self._tell_refund("created", refund)
        return refund

    def end_refund(self, refund: Refund, status: str) -> None:
        refund.status = status
        self._tell_refund("failed" if status == FAILED else "updated", refund)

    def _tell_refund(self, kind: str, refund: Refund) -> None:
        status = refund.status

        def see(life: Life) -> None:
            life.see_refund(refund.name, refund.intent, refund.units, status)
            life.unsent.pop(refund.ours or "", None)

        self._tell(stripe_events.an_event(f"refund.{kind}", self.refund_object(refund)), see)

    def refund_object(self, refund: Refund) -> dict[str, Any]:
        return {
            "id": refund.name, "payment_intent": refund.intent, "amount": refund.units,
            "currency": self.captures[refund.intent].currency.lower(), "status": refund.status,
            "created": refund.created, "metadata": {"ataa_refund": refund.ours} if refund.ours else {},
        }  # fmt: skip

    def dispute(self, intent: str, units: int) -> str:
        """Open a dispute; its money is still there. Its name."""
        name = f"dp_{next(self._numbers)}"
        self._dispute("created", name, Dispute(intent, units, "needs_response", (), self.now))
        return name

    def change_dispute(self, name: str, kind: str, status: str, *moves: int) -> None:
        known = self.disputes[name]
        changed = Dispute(known.intent, known.units, status, known.moves + moves, self.now)
        self._dispute(kind, name, changed)

    def _dispute(self, kind: str, name: str, dispute: Dispute) -> None:
        self.disputes[name] = dispute
        currency = self.captures[dispute.intent].currency.lower()
        body = stripe_events.dispute(
            kind, name, dispute.intent, dispute.units, dispute.status,
            currency=currency, moves=dispute.moves, settled_in=currency,
        )  # fmt: skip
        self._tell(body, lambda life: life.see_dispute(name, dispute))

    def _tell(self, body: dict[str, Any], see: See) -> None:
        self.events.append(Told(body | {"created": self.now}, see))


class RefundingProcessor(FakeProcessor):
    """Refunds at an `account`; `outcome` decides how the next refund is answered.

    `succeeded` and `pending`: as asked. `lost`: it is made, and the answer is lost. `unreachable`: it is not.
    """

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account
        self.outcome = SUCCEEDED

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        return {"intent": intent, "units": amount.minor_units, "ours": refund_id}

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        if self.outcome == "unreachable":
            raise Unknown("no connection")
        account, given = self.account, json.loads(json.dumps(parameters))
        if key not in account.by_key:
            if given["units"] > account.left(given["intent"]):
                raise Refused("charge already refunded")
            status = PENDING if self.outcome == PENDING else SUCCEEDED
            refund = account.refund(given["intent"], given["units"], status, given["ours"])
            account.by_key[key] = refund.name
        if self.outcome == "lost":
            raise Unknown("the answer was lost")
        return self._read(account.refunds[account.by_key[key]])

    async def list_refunds(self, intent: str) -> list[Observation]:
        return [self._read(each) for each in self.account.refunds.values() if each.intent == intent]

    def _read(self, refund: Refund) -> Observation:
        observation = refund_observation(self.account.refund_object(refund))
        assert observation is not None
        return observation
