"""Money through Payment Links: a good reference pays its pledge once, and other money counts for the drive.

None is lost or counted twice, in any order of webhooks.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone import ids
from services.payments.domain import Observation
from services.payments.overflow.lapse import lapse_unpaid
from services.payments.processor import Unknown
from services.payments.reconciliation.lookups import Reconciler
from services.payments.recording.ledger import CLEARING, RAISED, in_fund
from services.payments.recording.record import record
from services.payments.stripe.events import read_event
from services.payments.stripe.objects import session_capture
from services.payments.tables import PAYMENTS
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.overflow.linked import PRICE, Linked, a_link
from tests.payments.stripe_events import refund
from tests.rounds import run_lookups

_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def linked(books: Books) -> Linked:
    return await a_link(books)


@pytest.mark.parametrize("events", ["session", "session, intent", "intent, session"])
async def test_a_good_reference_pays_its_pledge(linked: Linked, events: str) -> None:
    pledge = await linked.pledge()
    known = {
        "session": linked.session("pi_1", linked.reference(pledge)), "intent": linked.intent("pi_1")
    }  # fmt: skip
    for name in events.split(", "):
        await linked.books.apply([known[name]])
    (payment,) = await linked.captured()
    assert (payment.pledge_id, payment.creator_id) == (pledge.pledge_id, pledge.creator_id)
    assert (payment.status, payment.held, payment.captured) == ("captured", False, PRICE)
    assert await linked.lookups() == []


@pytest.mark.parametrize("reference", [None, "good of another link", "plg_x-1", "not ours"])
async def test_money_without_a_good_reference_counts_for_the_drive_only(
    linked: Linked, reference: str | None
) -> None:
    pledge = await linked.pledge()
    if reference == "good of another link":
        reference = f"{pledge.pledge_id}-0123456789abcdef0123"
    await linked.books.apply([linked.session("pi_1", reference), linked.intent("pi_1")])
    (payment,) = await linked.captured()
    assert (payment.pledge_id, payment.creator_id, payment.held) == (None, None, False)
    assert payment.drive_id == linked.drive.drive_id
    assert (await linked.books.drive_balances(linked.drive.drive_id))[CLEARING] == PRICE
    (row,) = await linked.books.payments(pledge.pledge_id)
    assert row.status == "awaited"


async def test_a_reused_reference_credits_its_pledge_once(linked: Linked) -> None:
    pledge = await linked.pledge()
    for intent in ("pi_1", "pi_2", "pi_1"):
        await linked.books.apply([linked.session(intent, linked.reference(pledge)), linked.intent(intent)])
    first, second = await linked.captured()
    assert [(each.pledge_id, each.intent) for each in (first, second)] == [
        (pledge.pledge_id, "pi_1"), (None, "pi_2"),
    ]  # fmt: skip
    assert second.creator_id is None
    assert (await linked.books.drive_balances(linked.drive.drive_id))[CLEARING] == 2 * PRICE


async def test_zakat_that_is_paid_twice_is_zakat_twice(linked: Linked) -> None:
    pledge = await linked.pledge(purpose="zakat")
    for intent in ("pi_1", "pi_2"):
        await linked.books.apply([linked.session(intent, linked.reference(pledge)), linked.intent(intent)])
    first, second = await linked.captured()
    assert (first.zakat, second.zakat, second.pledge_id) == (True, True, None)
    balances = await linked.books.drive_balances(linked.drive.drive_id)
    assert balances[in_fund(RAISED, zakat=True)] == -2 * PRICE


async def test_another_amount_than_pledged_is_held(linked: Linked) -> None:
    pledge = await linked.pledge()
    await linked.books.apply([linked.session("pi_1", linked.reference(pledge), 900)])
    (payment,) = await linked.captured()
    assert (payment.pledge_id, payment.held_reason) == (pledge.pledge_id, "other_amount")


async def test_a_payment_of_a_lapsed_pledge_counts(linked: Linked) -> None:
    pledge = await linked.pledge()
    (row,) = await linked.books.payments(pledge.pledge_id)
    async with linked.books.database.transaction() as session:
        await session.execute(PAYMENTS.update().where(PAYMENTS.c.id == row.id).values(checkout="open"))
        await lapse_unpaid(session, row.id, linked.books.clock.now())
    (row,) = await linked.books.payments(pledge.pledge_id)
    assert row.status == "lapsed"
    await linked.books.apply([linked.session("pi_1", linked.reference(pledge))])
    (payment,) = await linked.captured()
    assert (payment.id, payment.status) == (row.id, "captured")


class Sessions(FakeProcessor):
    """Stripe with the sessions of payments through links."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, dict[str, Any]] = {}

    async def find_capture(self, intent: str) -> Observation | None:
        self._note(intent)
        if intent not in self.sessions:
            raise Unknown("no session")
        event = self.sessions[intent]
        return session_capture(event["data"]["object"], read_event(event).observation.at)  # type: ignore[union-attr]


def a_reconciler(linked: Linked, stripe: FakeProcessor) -> Reconciler:
    return Reconciler(linked.books.database, stripe, linked.books.clock)  # type: ignore[arg-type]


async def test_an_intent_reported_alone_waits_for_its_session(linked: Linked) -> None:
    pledge, stripe = await linked.pledge(), Sessions()
    reconciler = a_reconciler(linked, stripe)
    await linked.books.apply([linked.intent("pi_1"), refund("created", "re_1", "pi_1", 500, "succeeded")])
    assert await linked.captured() == []
    assert ("pi_1", "session") in await linked.lookups()
    assert await run_lookups(reconciler) == 0  # its event may still arrive
    linked.books.clock.move(11)
    await run_lookups(reconciler)
    assert await linked.captured() == []  # Stripe lists no session yet: asked again
    stripe.sessions["pi_1"] = linked.session("pi_1", linked.reference(pledge))
    linked.books.clock.move(7200)
    await run_lookups(reconciler)
    (payment,) = await linked.captured()
    assert (payment.pledge_id, payment.captured, payment.refunded) == (pledge.pledge_id, PRICE, 500)
    assert ("pi_1", "session") not in await linked.lookups()


async def test_a_lookup_of_a_session_is_never_given_up(linked: Linked) -> None:
    reconciler = a_reconciler(linked, Sessions())
    await linked.books.apply([linked.intent("pi_1")])
    for _ in range(40):
        linked.books.clock.move(7200)
        await run_lookups(reconciler)
    assert await linked.lookups() == [("pi_1", "session")]


async def test_a_swept_intent_waits_for_its_session(linked: Linked) -> None:
    found = read_event(linked.intent("pi_1")).observation
    assert found is not None
    async with linked.books.database.transaction() as session:
        await record(session, [found], linked.books.clock.now())
    assert await linked.captured() == []
    assert await linked.lookups() == [("pi_1", "session")]


REFERENCES = ("good", "good", "other pledge", "missing", "bad")


@st.composite
def storms(draw: st.DrawFn) -> tuple[list[str], list[int], list[int]]:
    """What the reference of each payment is, the order of twice their webhooks, and the batches."""
    payments = draw(st.lists(st.sampled_from(REFERENCES), min_size=1, max_size=5))
    order = draw(st.permutations(range(4 * len(payments))))
    return payments, order, draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))


async def assert_each_is_counted_once(books: Books, storm: tuple[list[str], list[int], list[int]]) -> None:
    payments, order, cuts = storm
    linked = await a_link(books)
    own, other, stripe = await linked.pledge(), await linked.pledge(), Sessions()
    references = {
        "good": linked.reference(own), "other pledge": linked.reference(other), "missing": None,
        "bad": f"{ids.new('plg')}-00",
    }  # fmt: skip
    webhooks = []
    for kind in payments:
        intent = f"pi_{next(_numbers)}"
        stripe.sessions[intent] = linked.session(intent, references[kind])
        webhooks += [stripe.sessions[intent], linked.intent(intent)] * 2
    ordered, sizes = [webhooks[place] for place in order], itertools.cycle(cuts)
    lost = len(ordered) // 3  # these webhooks never arrive, and Stripe is asked
    ordered = ordered[lost:]
    while ordered:
        size = next(sizes)
        await books.apply(ordered[:size])
        ordered = ordered[size:]
    swept = [linked.intent(intent) for intent in list(stripe.sessions)[-len(payments) :]]
    await books.apply(swept)
    books.clock.move(60)
    await run_lookups(a_reconciler(linked, stripe))
    captured = await linked.captured()
    assert sorted(each.intent for each in captured) == sorted(stripe.sessions)
    assert (await books.drive_balances(linked.drive.drive_id))[CLEARING] == PRICE * len(payments)
    credited = sorted(str(each.pledge_id) for each in captured if each.pledge_id)
    wanted = {own.pledge_id: "good" in payments, other.pledge_id: "other pledge" in payments}
    assert credited == sorted(pledge for pledge, is_paid in wanted.items() if is_paid)
    assert not any(each.held for each in captured)
    assert not any((await books.drift()).values())


Storm = tuple[list[str], list[int], list[int]]


@settings(max_examples=40, deadline=None)
@given(storms())
def test_any_order_of_webhooks_counts_each_payment_once(storm: Storm) -> None:
    async def on_sqlite() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_books(Path(folder)) as books:
                await assert_each_is_counted_once(books, storm)

    asyncio.run(on_sqlite())


@pytest.fixture
def a_postgres() -> str:
    """A fixture of its own, so that a missing PostgreSQL skips the test before its first example."""
    return postgres_server()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(storms())
def test_any_order_of_webhooks_counts_each_payment_once_on_postgresql(a_postgres: str, storm: Storm) -> None:
    async def on_postgresql() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with fresh_postgres() as url, open_books(Path(folder), url) as books:
                await assert_each_is_counted_once(books, storm)

    asyncio.run(on_postgresql())
