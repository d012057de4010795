"""Tries in the database: stored once, decided about, and the gifts of suspects held."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import delete, select

from backbone import ids
from backbone.contracts import DriveChanged
from services.payments.recording.record import record
from services.payments.screening.domain import ALL_DRIVES, DECLINES_UNDER_ATTACK, TRIES_OF_A_CHECKOUT
from services.payments.screening.pruning import screening_steps
from services.payments.screening.tables import BREAKERS, CLIENTS, REFUSED, TRIES
from services.payments.screening.worker import ScreeningWorker
from services.payments.stripe.events import read_event
from services.payments.tables import WEBHOOKS
from tests.payments.books import Books
from tests.payments.harness import a_pledge
from tests.payments.stripe_events import an_event, intent_succeeded, metadata, session_completed
from tests.payments.treasury.treasury_api import TreasuryApi, owned_drive


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def api(books: Books) -> TreasuryApi:
    # Events carry the real time: those of the next minute are in the windows of this one.
    books.clock.at = datetime.now(UTC) + timedelta(minutes=1)
    return TreasuryApi(books)


def declined(ours: dict[str, str], card: str = "card_1", intent: str = "pi_x") -> dict[str, Any]:
    """A declined card."""
    method = {"id": "pm_1", "card": {"fingerprint": card}}
    error = {"code": "card_declined", "payment_method": method}
    thing = {"id": intent, "amount": 500, "currency": "usd", "metadata": ours, "last_payment_error": error}
    return an_event("payment_intent.payment_failed", thing)


async def pledged(
    api: TreasuryApi, drive: DriveChanged, units: int = 500, client: str | None = "client_a"
) -> dict[str, str]:
    """A pledge; the metadata of its checkout."""
    pledge = a_pledge(drive, units, client=client)
    await api.books.consume(drive, pledge)
    (payment,) = await api.books.payments(pledge.pledge_id)
    return metadata(payment.id, pledge.pledge_id, drive.drive_id)


async def rows(books: Books, table: Any) -> list[Any]:
    async with books.database.reading() as session:
        return list((await session.execute(select(table))).all())


async def opened(books: Books, scope: str = ALL_DRIVES) -> None:
    async with books.database.transaction() as session:
        await session.execute(BREAKERS.insert(), [{"scope": scope, "opened_at": books.clock.now()}])


async def test_tries_are_stored_once_with_client_and_card(api: TreasuryApi) -> None:
    ours = await pledged(api, owned_drive())
    event, paid = declined(ours), intent_succeeded("pi_1", 500, ours)
    session = session_completed("cs_1", "pi_1", 500, ours)
    await api.books.apply([event])
    await api.books.apply([event, paid, session])
    first, second = await rows(api.books, TRIES)
    assert (first.client, first.card, first.declined, first.small) == ("client_a", "card_1", True, True)
    assert (second.client, second.card, second.declined, second.small) == ("client_a", None, False, True)
    assert first.payment_id == second.payment_id == ours["ataa_payment"]


async def test_try_whose_event_is_applied_again_counts_once(api: TreasuryApi) -> None:
    ours = await pledged(api, owned_drive())
    event = declined(ours)
    await api.books.apply([event])
    async with api.books.database.transaction() as session:
        await session.execute(delete(WEBHOOKS))
    await api.books.apply([event])
    assert len(await rows(api.books, TRIES)) == 1


@pytest.mark.parametrize(
    "thing",
    [{}, {"last_payment_error": None}, {"last_payment_error": {"payment_method": {"card": None}}},
     {"last_payment_error": "declined"}],
)  # fmt: skip
async def test_decline_that_cannot_be_read_stops_no_webhook(api: TreasuryApi, thing: dict[str, Any]) -> None:
    ours = await pledged(api, owned_drive())
    event = an_event("payment_intent.payment_failed", {"id": "pi_1", "metadata": ours} | thing)
    await api.books.apply([event, intent_succeeded("pi_1", 500, ours)])
    assert (await api.payment(ours["ataa_payment"]))["status"] == "captured"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "card_declined", "decline_code": "insufficient_funds"}, "insufficient_funds"),
        ({"code": "incorrect_cvc"}, "incorrect_cvc"),
        ({"code": "card_declined", "decline_code": "a_code_of_tomorrow"}, "other"),
        ({"code": "card_declined", "decline_code": {"not": "text"}}, "other"),
        ({}, "other"),
    ],
)
async def test_declines_are_counted_by_reason_of_a_bounded_set(
    api: TreasuryApi, error: dict[str, Any], reason: str
) -> None:
    def counted() -> dict[str, float]:
        (family,) = [one for one in REGISTRY.collect() if one.name == "ataa_card_declines"]
        return {one.labels["reason"]: one.value for one in family.samples if one.name.endswith("_total")}

    before = counted()
    ours = await pledged(api, owned_drive())
    thing = {"id": "pi_1", "metadata": ours, "last_payment_error": error}
    await api.books.apply([an_event("payment_intent.payment_failed", thing)])
    after = counted()
    assert after.keys() == before.keys()
    assert {each for each in after if after[each] != before[each]} == {reason}


async def test_small_gift_of_a_suspect_is_held_and_counts_once_a_person_releases_it(api: TreasuryApi) -> None:
    drive = owned_drive()
    other, ours = await pledged(api, drive), await pledged(api, drive)
    await opened(api.books)
    await api.books.apply([declined(other), declined(other, "card_2")])
    await api.books.apply([intent_succeeded("pi_1", 500, ours)])
    payment = ours["ataa_payment"]
    held = await api.payment(payment)
    assert held["held"]["reason"] == "suspected_card_testing"
    assert await api.books.balances(payment) == {"processor_clearing": 500, "held": -500}
    (announced,) = await api.books.published(ours["ataa_pledge"])
    assert announced.held
    await api.books.apply([session_completed("cs_1", "pi_1", 500, ours)])
    assert (await api.payment(payment))["held"] == held["held"]
    released = await api.release(payment, note="a donor who mistyped")
    assert (released.status, released.json()["held"]) == (200, None)
    assert released.json()["decisions"][0]["reason"] == "suspected_card_testing"
    assert await api.books.balances(payment) == {"processor_clearing": 500, "drive_raised": -500}
    assert not any((await api.books.drift()).values())


@pytest.mark.parametrize(
    ("scope", "units", "client", "declines"),
    [("", 500, "client_a", 2), ("drv_other", 500, "client_a", 2), (ALL_DRIVES, 5_000, "client_a", 2),
     (ALL_DRIVES, 500, "client_b", 2), (ALL_DRIVES, 500, None, 2), (ALL_DRIVES, 500, "client_a", 1)],
)  # fmt: skip
async def test_other_gifts_count_at_once(
    api: TreasuryApi, scope: str, units: int, client: str | None, declines: int
) -> None:
    drive = owned_drive()
    other, ours = await pledged(api, drive), await pledged(api, drive, units, client)
    if scope:
        await opened(api.books, scope)
    await api.books.apply([declined(other) for _ in range(declines)])
    await api.books.apply([intent_succeeded("pi_1", units, ours)])
    assert (await api.payment(ours["ataa_payment"]))["held"] is None


async def test_gift_whose_session_is_reported_first_is_held_too(api: TreasuryApi) -> None:
    drive = owned_drive()
    other, ours = await pledged(api, drive), await pledged(api, drive)
    await opened(api.books)
    await api.books.apply([declined(other), declined(other), session_completed("cs_1", "pi_1", 500, ours)])
    await api.books.apply([intent_succeeded("pi_1", 500, ours)])
    assert (await api.payment(ours["ataa_payment"]))["held"]["reason"] == "suspected_card_testing"


async def test_gift_whose_capture_the_sweep_reports_first_is_held_too(api: TreasuryApi) -> None:
    drive = owned_drive()
    other, ours = await pledged(api, drive), await pledged(api, drive)
    await opened(api.books)
    await api.books.apply([declined(other), declined(other)])
    paid = intent_succeeded("pi_1", 500, ours)
    seen = read_event(paid).observation
    assert seen is not None
    async with api.books.database.transaction() as session:
        await record(session, [seen], api.books.clock.now())
    await api.books.apply([paid])
    assert (await api.payment(ours["ataa_payment"]))["held"]["reason"] == "suspected_card_testing"


async def test_gift_captured_before_the_attack_is_not_held_by_what_is_reported_later(
    api: TreasuryApi,
) -> None:
    drive = owned_drive()
    other, ours = await pledged(api, drive), await pledged(api, drive)
    await api.books.apply([session_completed("cs_1", "pi_1", 500, ours)])
    await opened(api.books)
    await api.books.apply([declined(other), declined(other), intent_succeeded("pi_1", 500, ours)])
    assert (await api.payment(ours["ataa_payment"]))["held"] is None


async def test_client_of_a_pledge_reported_after_its_capture_is_noted(api: TreasuryApi) -> None:
    drive = owned_drive()
    pledge = a_pledge(drive, 500, client="client_a")
    await api.books.consume(drive)
    ours = metadata(ids.new("pay"), pledge.pledge_id, drive.drive_id)
    await api.books.apply([intent_succeeded("pi_1", 500, ours)])
    await api.books.consume(pledge)
    assert [(row.payment_id, row.client) for row in await rows(api.books, CLIENTS)] == [
        (ours["ataa_payment"], "client_a")
    ]


async def test_attack_opens_the_breakers_and_refuses_the_client(api: TreasuryApi) -> None:
    drive = owned_drive()
    worker = ScreeningWorker(api.books.database, api.books.clock)
    await worker.load()
    ours = await pledged(api, drive)
    await api.books.apply([declined(ours, f"card_{one}") for one in range(35)])
    decisions = await worker.step()
    assert set(decisions.opened) == {ALL_DRIVES, drive.drive_id}
    assert {row.scope for row in await rows(api.books, BREAKERS)} == {ALL_DRIVES, drive.drive_id}
    (refused,) = await rows(api.books, REFUSED)
    assert (refused.client, refused.reason) == ("client_a", "under_attack")
    (payment,) = await api.books.payments(ours["ataa_pledge"])
    assert payment.exhausted
    assert not await worker.step()


async def test_new_leader_knows_the_open_breakers_and_the_tries_of_the_last_hour(api: TreasuryApi) -> None:
    drive = owned_drive()
    ours = await pledged(api, drive)
    await opened(api.books, drive.drive_id)
    await api.books.apply([declined(ours) for _ in range(DECLINES_UNDER_ATTACK - 1)])
    first = ScreeningWorker(api.books.database, api.books.clock)
    await first.load()
    assert not (await first.step()).refused
    second = ScreeningWorker(api.books.database, api.books.clock)
    await second.load()
    await api.books.apply([declined(ours)])
    assert [each.client for each in (await second.step()).refused] == ["client_a"]


async def test_breaker_that_closes_is_closed_in_the_database(api: TreasuryApi) -> None:
    await opened(api.books)
    worker = ScreeningWorker(api.books.database, api.books.clock)
    await worker.load()
    await worker.step()
    api.books.clock.move(400)
    assert (await worker.step()).closed == [ALL_DRIVES]
    assert await rows(api.books, BREAKERS) == []


async def test_observing_stores_no_decision(api: TreasuryApi) -> None:
    await opened(api.books)
    worker = ScreeningWorker(api.books.database, api.books.clock, enforce=False)
    await worker.load()
    ours = await pledged(api, owned_drive())
    await api.books.apply([declined(ours) for _ in range(35)])
    assert (await worker.step()).opened
    assert await rows(api.books, BREAKERS) == await rows(api.books, REFUSED) == []
    (payment,) = await api.books.payments(ours["ataa_pledge"])
    assert not payment.exhausted


async def test_what_is_stored_of_clients_and_cards_is_deleted_after_a_day(api: TreasuryApi) -> None:
    ours = await pledged(api, owned_drive())
    await api.books.apply([declined(ours) for _ in range(TRIES_OF_A_CHECKOUT * 4)])
    worker = ScreeningWorker(api.books.database, api.books.clock)
    await worker.load()
    await worker.step()
    tables = (TRIES, CLIENTS, REFUSED)
    assert all([await rows(api.books, table) for table in tables])
    api.books.clock.at = datetime.now(UTC) + timedelta(days=1, minutes=1)
    for step in screening_steps(api.books.database, api.books.clock).values():
        while await step():
            pass
    assert not any([await rows(api.books, table) for table in tables])


async def test_warned_payments_are_listed(api: TreasuryApi) -> None:
    drive = owned_drive()
    payment, _ = await api.paid(drive)
    await api.paid(drive, intent="pi_2")
    warning = {"id": "issfr_1", "object": "radar.early_fraud_warning", "payment_intent": "pi_1"}
    await api.books.apply([an_event("radar.early_fraud_warning.created", warning)])
    listed = (await api.get("/v1/payments", "warned=true")).json()["data"]
    assert [(each["id"], each["held"]) for each in listed] == [(payment, None)]
    assert listed[0]["warned_at"] is not None
    assert (await api.get("/v1/payments", "warned=true&held=true")).json()["data"] == []


ORDERS = st.lists(st.sampled_from(["declined", "intent", "session"]), min_size=1, max_size=6)


@given(orders=st.lists(ORDERS, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_money_is_in_the_ledger_once_however_its_events_are_ordered(
    api: TreasuryApi, orders: Sequence[Sequence[str]]
) -> None:
    """Whether the gift is held depends on the order; that it is posted once, and in one account, does not."""
    drive = owned_drive(slug=f"winter-{time.monotonic_ns()}")
    ours = await pledged(api, drive, client=f"client_{time.monotonic_ns()}")
    if not await rows(api.books, BREAKERS):
        await opened(api.books)
    intent = f"pi_{time.monotonic_ns()}"
    events = {
        "declined": lambda: declined(ours, intent=intent),
        "intent": lambda: intent_succeeded(intent, 500, ours),
        "session": lambda: session_completed(f"cs_{intent}", intent, 500, ours),
    }
    for batch in orders:
        await api.books.apply([events[name]() for name in batch])
    captured = any(name != "declined" for batch in orders for name in batch)
    found = await api.books.balances(ours["ataa_payment"])
    account = "held" if (await api.payment(ours["ataa_payment"]))["held"] else "drive_raised"
    assert found == ({"processor_clearing": 500, account: -500} if captured else {})
    assert not any((await api.books.drift()).values())
