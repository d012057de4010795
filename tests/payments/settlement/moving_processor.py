"""A processor that lists balance transactions and payouts from its fields, and builders of both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from backbone.clock import Clock
from services.payments.processor import Movement, MovementPage, PayoutState, ProcessorError, Refused
from tests.payments.fake_processor import FakeProcessor


class MovingProcessor(FakeProcessor):
    """Lists `movements`, newest first, in pages of `page`; `lines` are those of each payout by id."""

    def __init__(self, clock: Clock, page: int = 100) -> None:
        super().__init__()
        self.clock = clock
        self.page = page
        self.movements: list[Movement] = []
        self.unreadable: list[str] = []
        self.lines: dict[str, list[Movement]] = {}
        self.payouts: dict[str, PayoutState] = {}
        self.asked: list[tuple[str | None, datetime | None]] = []
        self.failure: Callable[[str | None], ProcessorError | None] = lambda after: None

    async def list_movements(
        self, after: str | None, *, since: datetime | None = None, payout: str | None = None
    ) -> MovementPage:
        self.asked.append((after, since))
        if (failure := self.failure(after)) is not None:
            raise failure
        found = self.movements if payout is None else self.lines[payout]
        found = [each for each in found if since is None or each.created_at >= since]
        found.sort(key=lambda each: (each.created_at, each.id), reverse=True)
        if after is not None:
            places = [place for place, each in enumerate(found) if each.id == after]
            if not places:
                raise Refused("No such object", "starting_after")
            found = found[places[0] + 1 :]
        more = len(found) > self.page
        return MovementPage(found[: self.page], self.unreadable, found[self.page - 1].id if more else None)

    async def read_payout(self, payout_id: str) -> PayoutState | None:
        return self.payouts.get(payout_id)

    def pays(self, payout: str, *lines: Movement, off: int = 0, **other: Any) -> Movement:
        """Make a payout of these lines, its amount `off` by that much; returns its own movement, listed."""
        amount = sum(line.net for line in lines) + off
        own = moved(f"txn_{payout}", "payout", None, -amount, source=payout, at=self.clock.now())
        given: dict[str, Any] = {
            "id": payout, "amount": amount, "currency": "USD", "status": "paid", "lines": True,
            "arrival_at": self.clock.now() + timedelta(days=2), "created_at": self.clock.now(),
        }  # fmt: skip
        self.payouts[payout] = PayoutState(**given | other)
        self.lines[payout] = [own, *lines]
        self.movements.append(own)
        return own


def moved(
    key: str, kind: str, intent: str | None, amount: int, fee: int = 0, *, at: datetime, **other: Any
) -> Movement:
    """A balance transaction in USD made at `at`."""
    given: dict[str, Any] = {
        "id": key, "type": kind, "source": f"src_{key}", "intent": intent, "amount": amount, "fee": fee,
        "currency": "USD", "exchange_rate": None, "created_at": at, "available_on": at,
    }  # fmt: skip
    return Movement(**given | other)
