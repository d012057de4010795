"""After any history of captures, refunds, disputes, holds and releases the ledgers equal the payments."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from backbone.contracts import PledgeChanged, PledgeMade
from services.payments.tables import PAYMENTS
from services.payments.treasury.balances import read_drive_ledger, statements, trial_balance
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import open_books
from tests.payments.harness import a_pledge
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund
from tests.payments.treasury.treasury_api import ADMIN, TreasuryApi, owned_drive

_number = itertools.count(1)

UNITS = st.sampled_from([1, 100, 2_500, 2_600])
DRIVES = st.sampled_from([0, 1, 2, 3])
"""Two drives in dollars, one in euros, and one that is announced later or never."""
PICKED = st.integers(0, 9)

STEPS = st.one_of(
    st.tuples(st.just("capture"), DRIVES, UNITS, st.sampled_from(["usd", "usd", "eur"]), st.booleans()),
    st.tuples(st.just("capture"), DRIVES, st.just(2_500), st.just("usd"), st.just(True)),
    st.tuples(st.just("second_capture"), PICKED, UNITS),
    st.tuples(st.just("pledge"), PICKED, DRIVES),
    st.tuples(st.just("refund"), PICKED, UNITS, st.sampled_from(["pending", "succeeded", "failed"])),
    st.tuples(st.just("dispute"), PICKED, UNITS, st.sampled_from(["needs_response", "won", "lost"])),
    st.tuples(st.just("release"), PICKED, DRIVES),
    st.tuples(st.just("release"), PICKED, DRIVES),
    st.tuples(st.just("announce")),
)
HISTORIES = st.lists(STEPS, max_size=14)


class History:
    """Applies steps to one database; what a step picks is one of the payments or pledges there are."""

    def __init__(self, api: TreasuryApi) -> None:
        self.api = api
        self.drives = [owned_drive(c, slug=f"d{n}") for n, c in enumerate(("USD", "USD", "EUR", "USD"))]
        self.pledges: list[tuple[PledgeMade, str]] = []
        self.released: dict[str, str] = {}
        """The drive in which each payment was released."""

    async def begin(self) -> None:
        await self.api.books.consume(*self.drives[:3])

    async def apply(self, name: str, *given: Any) -> None:
        await getattr(self, name)(*given)

    async def announce(self) -> None:
        await self.api.books.consume(self.drives[3])

    async def capture(self, drive: int, units: int, currency: str, known: bool) -> None:
        pledge = a_pledge(self.drives[drive], 2_500)
        if known:
            await self.api.books.consume(pledge)
        intent = f"pi_{next(_number)}"
        self.pledges.append((pledge, intent))
        ours = metadata(None, pledge.pledge_id, self.drives[drive].drive_id)
        await self.api.books.apply([intent_succeeded(intent, units, ours, currency)])

    async def second_capture(self, picked: int, units: int) -> None:
        if self.pledges:
            pledge, _ = self.pledges[picked % len(self.pledges)]
            intent = f"pi_{next(_number)}"
            self.pledges.append((pledge, intent))
            ours = metadata(None, pledge.pledge_id, pledge.drive_id)
            await self.api.books.apply([intent_succeeded(intent, units, ours)])

    async def pledge(self, picked: int, drive: int) -> None:
        """The pledge's event arrives, again or late; its newest state may name another drive."""
        if self.pledges:
            pledge, _ = self.pledges[picked % len(self.pledges)]
            state = {"version": next(_number) + 1, "drive_id": self.drives[drive].drive_id}
            await self.api.books.consume(pledge, PledgeChanged(**pledge.model_dump() | state))

    async def refund(self, picked: int, units: int, status: str) -> None:
        if self.pledges:
            _, intent = self.pledges[picked % len(self.pledges)]
            event = refund("updated", f"re_{intent}_{units}", intent, min(units, 2_500), status)
            await self.api.books.apply([event])

    async def dispute(self, picked: int, units: int, status: str) -> None:
        if self.pledges:
            _, intent = self.pledges[picked % len(self.pledges)]
            event = dispute(
                "updated", f"dp_{intent}", intent, units, status, at=1_700_000_000 + next(_number)
            )
            await self.api.books.apply([event])

    async def release(self, picked: int, drive: int) -> None:
        held = [row.id for row in await self.payments() if row.held]
        if held:
            payment, target = held[picked % len(held)], self.drives[drive]
            reply = await self.api.release(payment, caller=ADMIN, drive=target.drive_id)
            assert reply.status in (200, 404, 409), reply.body  # another currency; not announced
            if reply.status == 200:
                self.released[payment] = target.drive_id

    async def payments(self) -> list[Any]:
        async with self.api.books.database.reading() as session:
            return list((await session.execute(select(PAYMENTS).order_by(PAYMENTS.c.number))).all())

    async def check(self) -> None:
        """Fail unless every drive's ledger balances and its statement is the sum of its payments."""
        rows = await self.payments()
        for payment, target in self.released.items():
            row = next(each for each in rows if each.id == payment)
            assert (row.drive_id, row.held) == (target, False)
        for drive in self.drives:
            read = partial(read_drive_ledger, drive_id=drive.drive_id)
            found = await self.api.books.database.read_whole(read)
            sums: Counter[str] = Counter()
            for each in trial_balance(found.movements):
                sums[each.currency] += each.debit - each.credit
            assert not any(sums.values())
            own = [row for row in rows if row.drive_id == drive.drive_id and row.paid_currency]
            for line in statements(found, drive.currency):
                paid = [row for row in own if row.paid_currency == line.currency]
                counted = [row for row in paid if not row.held]
                assert line.gross == sum(row.captured for row in counted)
                assert line.refunds == sum(row.refunded for row in counted)
                assert line.disputes == sum(row.disputed for row in counted)
                assert line.raised == sum(_net(row) for row in counted)
                assert line.held == sum(_net(row) for row in paid if row.held)
        assert not any((await self.api.books.drift()).values())


def _net(row: Any) -> int:
    net: int = row.captured - row.refunded - row.disputed
    return net


async def check_history(steps: list[tuple[Any, ...]], url: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder), url) as books:
            history = History(TreasuryApi(books))
            await history.begin()
            for step in steps:
                await history.apply(*step)
                await history.check()


@settings(max_examples=40, deadline=None)
@given(HISTORIES)
def test_drives_ledgers_equal_their_payments_after_any_history(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(check_history(steps))


@pytest.fixture
def a_postgres() -> str:
    """A fixture of its own, so that a missing PostgreSQL skips the test before its first example."""
    return postgres_server()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_drives_ledgers_equal_their_payments_after_any_history_on_postgresql(
    a_postgres: str, steps: list[tuple[Any, ...]]
) -> None:
    async def on_postgresql() -> None:
        async with fresh_postgres() as url:
            await check_history(steps, url)

    asyncio.run(on_postgresql())
