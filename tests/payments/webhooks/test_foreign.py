"""Events that are not for us: other business on the same account, other accounts, the other mode."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import select

from services.payments.processor import Foreign
from services.payments.queries import quarantined_webhooks, read_books, unplaced_facts
from services.payments.reconciliation.lookups import Reconciler
from services.payments.stripe.marks import is_marked
from services.payments.stripe.objects import intent_capture, moment_of, refund_observation
from services.payments.tables import APPLIED, FACTS, IGNORED, LOOKUPS, PAYMENTS, POSTINGS, WEBHOOKS
from services.payments.webhooks.foreign import OurAccount
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import (
    OURS,
    a_charge_refunded,
    a_thin_event,
    an_event,
    dispute,
    intent_succeeded,
    metadata,
    refund,
    session_completed,
    session_expired,
)
from tests.rounds import run_lookups

PLEDGE = "plg_01frtz5n00000000000000000c"
MINUTE_S = 60.0


async def rows_of(books: Books, *tables: Any) -> list[Any]:
    async with books.database.reading() as session:
        return [row for table in tables for row in (await session.execute(select(table))).all()]


async def money_rows(books: Books) -> list[Any]:
    """All rows and metrics that would count, hold, announce or report money."""
    return await rows_of(books, FACTS, PAYMENTS, POSTINGS, LOOKUPS, books.database.messaging_tables.outbox)


async def states(books: Books) -> list[tuple[int, str | None]]:
    return [(row.state, row.reason) for row in await rows_of(books, WEBHOOKS)]


def ignored(kind: str, why: str) -> float:
    return REGISTRY.get_sample_value("ataa_webhooks_ignored_total", {"type": kind, "why": why}) or 0.0


def a_foreign_session(**other: Any) -> dict[str, Any]:
    thing = {
        "id": "cs_shop", "mode": "payment", "payment_intent": "pi_shop", "payment_status": "paid",
        "amount_total": 9_900, "currency": "usd", "metadata": {}, "client_reference_id": None,
    }  # fmt: skip
    return an_event("checkout.session.completed", thing | other)


@pytest.mark.parametrize(
    "event",
    [
        intent_succeeded("pi_shop", 9_900, {}),
        intent_succeeded("pi_shop", 9_900, {"order": "17"}),
        an_event("payment_intent.succeeded", {"id": "pi_shop", "amount_received": 1, "currency": "usd"}),
        an_event("payment_intent.succeeded", {"id": "pi_shop", "metadata": None}),
        a_foreign_session(),
        a_foreign_session(client_reference_id="order-17"),
        a_foreign_session(mode="setup", currency=None, amount_total=None, payment_intent=None),
        a_foreign_session(mode="subscription", payment_intent=None),
        session_expired("cs_shop", {}),
        an_event("checkout.session.expired", {"id": "cs_shop", "currency": None, "metadata": {}}),
        an_event("payment_intent.payment_failed", {"id": "pi_shop", "metadata": {}}),
        an_event("charge.refunded", {"id": "ch_1", "amount_refunded": 5, "currency": "usd", "metadata": {}}),
        an_event("refund.created", {"id": "re_1", "payment_intent": None, "charge": "ch_1", "metadata": {}}),
    ],
)
async def test_unmarked_events_are_counted_and_otherwise_ignored(books: Books, event: dict[str, Any]) -> None:
    before = ignored(event["type"], "foreign")
    await books.apply([event])
    assert await states(books) == [(IGNORED, "foreign")]
    assert ignored(event["type"], "foreign") == before + 1
    assert await money_rows(books) == []
    assert not any((await books.drift()).values())
    assert await books.database.read_whole(read_books) == {}
    async with books.database.reading() as session:
        assert await quarantined_webhooks(session) == 0


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (intent_succeeded("pi_1", 100, OURS) | {"livemode": True}, "other_mode"),
        (intent_succeeded("pi_1", 100, OURS) | {"account": "acct_1Another"}, "other_account"),
        (refund("created", "re_1", "pi_1", 100, "succeeded") | {"account": "acct_1Another"}, "other_account"),
        (a_thin_event("payment_intent.succeeded"), "thin"),
    ],
)
async def test_events_of_another_mode_or_account_and_thin_events_are_counted_and_ignored(
    books: Books, event: dict[str, Any], why: str
) -> None:
    before = ignored(event["type"], why)
    await books.apply([event])
    assert await states(books) == [(IGNORED, why)]
    assert ignored(event["type"], why) == before + 1
    assert await money_rows(books) == []


@pytest.mark.parametrize("hold", [False, True])
async def test_hold_foreign_still_ignores_other_accounts_and_modes(tmp_path: Path, hold: bool) -> None:
    async with open_books(tmp_path, ours=OurAccount(hold_foreign=hold)) as books:
        await books.apply([intent_succeeded("pi_1", 100, {}) | {"livemode": True}])
        await books.apply([intent_succeeded("pi_1", 100, {}) | {"account": "acct_1Another"}])
        assert await money_rows(books) == []


async def test_events_that_name_our_own_account_are_applied(tmp_path: Path) -> None:
    async with open_books(tmp_path, ours=OurAccount(livemode=True, id="acct_1Ours")) as books:
        event = intent_succeeded("pi_1", 100, OURS) | {"livemode": True}
        await books.apply([event | {"account": "acct_1Ours"}, event | {"id": "evt_other", "account": None}])
        assert await states(books) == [(APPLIED, None)] * 2
        assert len(await rows_of(books, POSTINGS)) == 1


@pytest.mark.parametrize(
    "mark",
    [
        {"metadata": {"ataa_payment": "pay_01frtz5n00000000000000000c"}},
        {"metadata": {"ataa_pledge": PLEDGE}},
        {"metadata": {"ataa_drive": "no id at all"}},
        {"metadata": {"ataa_of_a_later_version": "x"}},
        {"client_reference_id": PLEDGE},
        {"client_reference_id": "plg_a_pledge_we_do_not_know"},
    ],
)
async def test_marked_money_for_unknown_pledges_goes_to_suspense_and_is_never_ignored(
    books: Books, mark: dict[str, Any]
) -> None:
    await books.apply([a_foreign_session(**mark)])
    (posting,) = await rows_of(books, POSTINGS)
    assert (posting.debit, posting.credit, posting.units) == ("processor_clearing", "held", 9_900)
    assert await states(books) == [(APPLIED, None)]


@pytest.mark.parametrize("metadata_", [None, [], "ataa_pledge", {}, {"pledge": "x"}, {"ATAA_PLEDGE": "x"}])
def test_no_other_metadata_is_a_mark(metadata_: Any) -> None:
    assert not is_marked({"metadata": metadata_, "client_reference_id": None})


async def test_an_intent_without_its_mark_is_recognised_by_its_session(books: Books) -> None:
    ours = session_completed("cs_1", "pi_1", 2_500, OURS)
    bare = intent_succeeded("pi_1", 2_500, {})
    await books.apply([bare, ours])  # in one batch
    await books.apply([bare | {"id": "evt_again"}])  # and of a known payment
    assert await states(books) == [(APPLIED, None)] * 3
    assert len(await rows_of(books, POSTINGS)) == 1


async def test_an_unmarked_intent_before_its_marked_session_counts(books: Books) -> None:
    await books.apply([intent_succeeded("pi_1", 2_500, {})])
    await books.apply([session_completed("cs_1", "pi_1", 2_500, OURS)])
    (payment,) = await rows_of(books, PAYMENTS)
    assert (payment.intent, payment.captured) == ("pi_1", 2_500)


class Shop(FakeProcessor):
    """A processor whose unknown intents belong to other business."""

    async def find_capture(self, intent: str) -> Any:
        if (found := await super().find_capture(intent)) is not None:
            return found
        thing = intent_succeeded(intent, 9_900, {})["data"]["object"]
        return Foreign(intent_capture(thing, moment_of(1_700_000_000)))


async def ask_for_a_while(books: Books, shop: FakeProcessor, *, hold: bool = False) -> None:
    reconciler = Reconciler(books.database, shop, books.clock, hold_foreign=hold)
    for _ in range(15):
        books.clock.move(MINUTE_S)
        await run_lookups(reconciler)


FOLLOWING = {
    "refund": [refund("created", "re_shop", "pi_shop", 9_900, "pending")],
    "refund, told twice": [
        refund("created", "re_shop", "pi_shop", 9_900, "pending"),
        refund("updated", "re_shop", "pi_shop", 9_900, "succeeded"),
    ],
    "dispute": [dispute("created", "dp_shop", "pi_shop", 9_900, "needs_response")],
    "charge": [a_charge_refunded("pi_shop", 9_900)],
}


@pytest.mark.parametrize("events", FOLLOWING.values(), ids=FOLLOWING)
async def test_refunds_of_foreign_money_are_dropped_once_stripe_reports_it_as_foreign(
    books: Books, events: list[dict[str, Any]]
) -> None:
    shop = Shop()
    shop.refunds["pi_shop"] = [  # read because of the charge's hint
        found for event in FOLLOWING["refund"] if (found := refund_of(event)) is not None
    ]
    before = ignored("refund", "foreign") + ignored("dispute", "foreign")
    await books.apply([intent_succeeded("pi_shop", 9_900, {}), *events])
    await ask_for_a_while(books, shop)
    assert await money_rows(books) == []
    assert ignored("refund", "foreign") + ignored("dispute", "foreign") == before + 1
    async with books.database.reading() as session:
        assert (await unplaced_facts(session), await quarantined_webhooks(session)) == (0, 0)
    looked_up = len(shop.looked_up)
    await ask_for_a_while(books, shop)
    assert len(shop.looked_up) == looked_up


def refund_of(event: dict[str, Any]) -> Any:
    return refund_observation(event["data"]["object"])


@pytest.mark.parametrize("events", FOLLOWING.values(), ids=FOLLOWING)
async def test_refunds_of_unreported_money_of_ours_are_subtracted(
    books: Books, events: list[dict[str, Any]]
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    stripe = Shop()
    stripe.refunds["pi_shop"] = [refund_of(FOLLOWING["refund"][0])]
    thing = intent_succeeded("pi_shop", 9_900, metadata(None, pledge.pledge_id, drive.drive_id))
    stripe.captures["pi_shop"] = intent_capture(thing["data"]["object"], moment_of(1_700_000_000))
    await books.apply(events)
    await ask_for_a_while(books, stripe)
    (payment,) = await books.payments(pledge.pledge_id)
    assert (payment.captured, payment.refunded + payment.disputed) == (9_900, 9_900)


async def test_a_refund_requested_through_the_api_is_never_dropped(books: Books) -> None:
    await books.apply(
        [refund("created", "re_1", "pi_shop", 100, "succeeded", ours="rfd_01frtz5n00000000000000000c")]
    )
    await ask_for_a_while(books, Shop())
    (payment,) = await rows_of(books, PAYMENTS)
    assert (payment.held, payment.captured, payment.refunded) == (True, 9_900, 100)


async def test_with_hold_foreign_a_refund_of_unknown_money_records_its_capture_in_suspense(
    tmp_path: Path,
) -> None:
    async with open_books(tmp_path, ours=OurAccount(hold_foreign=True)) as books:
        await books.apply([refund("created", "re_1", "pi_shop", 100, "succeeded")])
        await ask_for_a_while(books, Shop(), hold=True)
        (payment,) = await rows_of(books, PAYMENTS)
        assert (payment.held, payment.captured, payment.refunded) == (True, 9_900, 100)


# Any order.


@st.composite
def streams(draw: st.DrawFn) -> list[list[tuple[str, int]]]:
    """Batches of events about a donation of ours and about the shop's money, in any order."""
    ours = [("ours", n) for n in range(5)]
    shop = [("shop", n) for n in range(6)]
    order = draw(st.permutations(ours + shop))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=6)))
    return [list(order[start:end]) for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


def told(name: tuple[str, int], ours: dict[str, str]) -> dict[str, Any]:
    whose, n = name
    intent, marks = (f"pi_{whose}", ours if whose == "ours" else {})
    every = [
        intent_succeeded(intent, 1_000, marks),
        session_completed(f"cs_{whose}", intent, 1_000, marks),
        refund("created", f"re_{whose}", intent, 100, "pending"),
        refund("updated", f"re_{whose}", intent, 100, "succeeded"),
        dispute("created", f"dp_{whose}", intent, 500, "needs_response"),
        a_charge_refunded(intent, 100),
    ]
    return every[n]


async def outcome(books: Books, batches: list[list[tuple[str, int]]]) -> Any:
    drive = a_drive()
    pledge = a_pledge(drive, 1_000)
    await books.consume(drive, pledge)
    ours = metadata(None, pledge.pledge_id, drive.drive_id)
    shop = Shop()
    shop.refunds["pi_shop"] = [refund_of(told(("shop", 3), {}))]
    thing = intent_succeeded("pi_ours", 1_000, ours)["data"]["object"]
    shop.captures["pi_ours"] = intent_capture(thing, moment_of(1_700_000_000))
    for batch in batches:
        await books.apply([told(name, ours) for name in batch])
    await ask_for_a_while(books, shop)
    (row,) = await rows_of(books, PAYMENTS)
    facts = sorted(fact.id for fact in await rows_of(books, FACTS))
    assert await rows_of(books, LOOKUPS) == []
    assert not any((await books.drift()).values())
    return (row.captured, row.refunded, row.disputed, row.held, facts, await books.balances(row.id))


async def agrees(batches: list[list[tuple[str, int]]], url: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder), url) as books:
            assert await outcome(books, batches) == (
                1_000, 100, 500, False, ["dp_ours", "pi_ours", "re_ours"],
                {"processor_clearing": 400, "refunds": 100, "disputes": 500, "drive_raised": -1_000},
            )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(streams())
def test_in_any_order_foreign_money_is_dropped_and_ours_is_complete(
    batches: list[list[tuple[str, int]]],
) -> None:
    asyncio.run(agrees(batches))


@pytest.fixture
def a_postgres() -> str:
    """A fixture of its own, so that a missing PostgreSQL skips the test before its first example."""
    return postgres_server()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_in_any_order_foreign_money_is_dropped_and_ours_is_complete_on_postgresql(
    a_postgres: str, batches: list[list[tuple[str, int]]]
) -> None:
    async def on_postgresql() -> None:
        async with fresh_postgres() as url:
            await agrees(batches, url)

    asyncio.run(on_postgresql())
