"""Requests, decisions, outages and refunds in Stripe's dashboard in any order: the rules always hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from services.payments.approvals.tables import APPROVALS
from services.payments.large_refunds.tables import LARGE_REFUNDS
from services.payments.tables import REFUNDS
from tests.payments.large_refunds.large_refunds_api import ABOVE, RefundApi, open_refunds
from tests.rounds import run_round

PAID = 50_000
THRESHOLD = ABOVE * 100
UNITS = st.sampled_from([1, 2_500, 5_000, THRESHOLD, THRESHOLD + 1, 20_000, 45_000, PAID])
KEYS = st.sampled_from(["key_a", "key_b"])
PICKED = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("ask"), UNITS, KEYS),
    st.tuples(st.just("ask"), UNITS, KEYS),
    st.tuples(st.just("approve"), PICKED, KEYS),
    st.tuples(st.just("approve"), PICKED, KEYS),
    st.tuples(st.just("reject"), PICKED, KEYS),
    st.tuples(st.just("elsewhere"), UNITS, KEYS),
    st.tuples(st.just("dispute"), UNITS, KEYS),
    st.tuples(st.just("down"), st.booleans(), KEYS),
    st.tuples(st.just("retry"), st.just(0), KEYS),
)


class Run:
    """One payment, and what is done to it."""

    def __init__(self, api: RefundApi, payment: str) -> None:
        self.api, self.payment = api, payment
        self.asked: list[str] = []
        self.disputed = False

    async def step(self, name: str, value: Any, key: str) -> None:
        steps: dict[str, Callable[[Any, str], Coroutine[Any, Any, None]]] = {
            "ask": self.ask, "approve": self.approve, "reject": self.reject, "elsewhere": self.elsewhere,
            "dispute": self.dispute, "down": self.down, "retry": self.retry,
        }  # fmt: skip
        await steps[name](value, key)

    async def ask(self, units: int, key: str) -> None:
        reply = await self.api.ask_refund(self.payment, f"{units / 100:.2f}", key=key)
        if reply.status == 201:
            self.asked.append(reply.json()["id"])
            _, refunded, _, reserved = await self.sums()
            assert refunded + reserved <= PAID
        else:
            assert (reply.status, reply.json()["type"]) == (409, "/problems/refund-exceeds-payment")

    async def approve(self, picked: int, key: str) -> None:
        if (refund := self.picked(picked)) is None:
            return
        before = await self.status_of(refund)
        status, found, _ = await self.api.decided(refund, "approve", key)
        if status == 200 and before == "pending":
            _, refunded, disputed, reserved = await self.sums()
            assert refunded + disputed + reserved <= PAID
        else:
            assert status == 200 or await self.status_of(refund) == before, found

    async def reject(self, picked: int, key: str) -> None:
        if (refund := self.picked(picked)) is not None:
            await self.api.decided(refund, "reject", key)

    async def elsewhere(self, units: int, _key: str) -> None:
        if units <= PAID - self.api.stripe.given_back("pi_1"):
            await self.api.refund_elsewhere("pi_1", units)

    async def dispute(self, units: int, _key: str) -> None:
        if not self.disputed:
            self.disputed = True
            await self.api.disputed("pi_1", units)

    async def down(self, down: bool, _key: str) -> None:
        self.api.stripe.down = down

    async def retry(self, _: int, _key: str) -> None:
        self.api.books.clock.move(120)
        await run_round(self.api.refunds)

    def picked(self, number: int) -> str | None:
        return self.asked[-1 - number % len(self.asked)] if self.asked else None

    async def status_of(self, refund: str) -> str | None:
        async with self.api.books.database.reading() as session:
            found = select(LARGE_REFUNDS.c.status).where(LARGE_REFUNDS.c.id == refund)
            return (await session.execute(found)).scalar()

    async def sums(self) -> tuple[int, int, int, int]:
        """Captured, refunded, disputed and reserved."""
        (row,) = await self.api.books.payments((await self.api.payment(self.payment))["pledge"])
        async with self.api.books.database.reading() as session:
            rows = (await session.execute(select(REFUNDS))).all()
        reserved = sum(each.units for each in rows if each.state in ("unsent", "unapproved"))
        return row.captured, row.refunded, row.disputed, reserved

    async def check_what_was_sent(self) -> None:
        """No key alone had more sent than the threshold; what was rejected was never sent."""
        async with self.api.books.database.reading() as session:
            large = {row.id: row for row in await session.execute(select(LARGE_REFUNDS))}
            approvals = (await session.execute(select(APPROVALS))).all()
        sent = list(self.api.stripe.sent.values())
        assert sum(each.units for each in sent if each.ours not in large) <= THRESHOLD
        for each in sent:
            if each.ours in large:
                row = large[each.ours]
                (approver,) = [
                    one.key_id for one in approvals if (one.subject, one.action) == (row.id, "approve")
                ]
                assert row.status == "approved"
                assert approver != row.asked_by
        assert len({each.ours for each in sent}) == len(sent)
        assert self.api.stripe.given_back("pi_1") <= PAID


async def live(steps: list[tuple[str, Any, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_refunds("sqlite", Path(folder)) as api:
            run = Run(api, await api.paid(PAID))
            for step in steps:
                await run.step(*step)
                await run.check_what_was_sent()
            api.stripe.down = False
            for _ in range(4):
                await run.retry(0, "")
            await run.check_what_was_sent()
            _, refunded, _, _ = await run.sums()
            assert refunded == api.stripe.given_back("pi_1")
            assert not any((await api.books.drift()).values())
            async with api.books.database.reading() as session:
                states = {row.state for row in await session.execute(select(REFUNDS))}
            assert "unsent" not in states


@given(steps=st.lists(STEPS, min_size=2, max_size=12))
def test_no_order_sends_more_than_was_paid_or_more_than_the_threshold_by_one_key(
    steps: list[tuple[str, Any, str]],
) -> None:
    asyncio.run(live(steps))
