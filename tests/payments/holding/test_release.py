"""A person counts held money, and the decision outlives everything reported later."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from backbone.contracts import DriveState, PledgeChanged
from backbone.idempotency import ScopedKey
from backbone.ids import CreatorId, DriveId
from backbone.money import Money
from services.payments.domain import FactKind, Observation, RefundRank
from services.payments.processor import Movement
from services.payments.recording.record import record
from services.payments.refunds import RefundExceedsPayment, RefundRequest
from services.payments.settlement.record import record_movements
from services.payments.statements import lock_intents
from tests.payments.books import Books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata, refund
from tests.payments.treasury.treasury_api import ADMIN, OWNER, TreasuryApi, owned_drive
from tests.waiting import until

COUNTED = {"processor_clearing": 2_600, "drive_raised": -2_600}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def api(books: Books) -> TreasuryApi:
    return TreasuryApi(books)


async def test_released_payment_counts_and_names_who_decided(api: TreasuryApi) -> None:
    drive = owned_drive()
    payment, pledge = await api.paid(drive, 2_600)
    held = await api.payment(payment)
    assert held["held"]["reason"] == "other_amount"
    assert (held["pledged"]["value"], held["captured"]["value"]) == ("25.00", "26.00")
    reply = await api.release(payment, note="=2 gifts")
    assert reply.status == 200, reply.body
    shown = reply.json()
    assert shown == await api.payment(payment)
    assert (shown["held"], shown["reporting_amount"], shown["rate"]) == (None, shown["captured"], "1")
    (decision,) = shown["decisions"]
    assert decision["by"] == {"key": "key_of_a_person", "partner": "charity"}
    assert (decision["kind"], decision["note"], decision["reason"]) == ("release", "=2 gifts", "other_amount")
    assert decision["before"] == decision["after"] == {"drive": drive.drive_id, "creator": shown["creator"]}
    assert [each["credit"] for each in shown["postings"]] == ["held", "drive_raised"]
    assert await api.books.balances(payment) == COUNTED
    published = await api.books.published(pledge)
    assert [(event.held, event.in_other_drive) for event in published] == [(True, False), (False, False)]


async def test_release_survives_what_is_reported_later(api: TreasuryApi) -> None:
    drive, other = owned_drive(), owned_drive(slug="spring")
    payment, _ = await api.paid(drive, 2_600)
    await api.books.consume(other)
    assert (await api.release(payment, drive=other.drive_id)).status == 200
    (row,) = await rows_of(api, payment)
    await api.books.apply([refund("created", "re_1", "pi_1", 600, "succeeded")])
    moved = {"drive_id": drive.drive_id, "creator_id": None, "amount": Money(2_500, "USD"), "version": 2}
    state = a_pledge(drive, pledge_id=row.pledge_id).model_dump() | moved
    await api.books.consume(PledgeChanged(**state), drive.model_copy(update={"version": 9}))
    (row,) = await rows_of(api, payment)
    assert (row.held, row.drive_id, row.creator_id, row.pledge_version) == (False, other.drive_id, None, 2)
    assert await api.books.drive_balances(drive.drive_id) == {}
    counted = {"processor_clearing": 2_000, "drive_raised": -2_600, "refunds": 600}
    assert await api.books.drive_balances(other.drive_id) == counted
    last = (await api.books.published(row.pledge_id))[-1]
    assert (last.drive_id, last.held, last.in_other_drive) == (other.drive_id, False, True)
    assert not any((await api.books.drift()).values())


async def test_fee_moves_with_its_payment_also_one_that_is_read_later(api: TreasuryApi) -> None:
    drive, other = owned_drive(), owned_drive(slug="spring")
    payment, _ = await api.paid(drive, 2_600)
    await api.books.consume(other)
    await settle(api, "txn_1", 105)
    assert (await api.release(payment, drive="spring")).status == 200
    await settle(api, "txn_1", 105)
    await settle(api, "txn_2", 20)
    assert await api.books.drive_balances(drive.drive_id) == {}
    counted = {"processor_clearing": 2_475, "processor_fees": 125, "drive_raised": -2_600}
    assert await api.books.drive_balances(other.drive_id) == counted
    assert not any((await api.books.drift()).values())


async def test_refund_of_a_pledge_leaves_what_was_released_into_another_owners_drive(
    api: TreasuryApi,
) -> None:
    drive, theirs = owned_drive(), owned_drive(slug="theirs", partner="neighbour")
    payment, pledge = await api.paid(drive)
    await api.books.consume(theirs)
    await api.books.apply([intent_succeeded("pi_2", 9_900, metadata(payment, pledge, drive.drive_id))])
    (_, second) = await api.books.payments(pledge)
    assert (await api.release(second.id, caller=ADMIN, drive="theirs")).status == 200
    request = RefundRequest(pledge, OWNER, Money(9_900, "USD"), None, ScopedKey("refunds", "k"), "h")
    with pytest.raises(RefundExceedsPayment):
        await api.refunds.make(request)


async def settle(api: TreasuryApi, name: str, fee: int) -> None:
    """Have a balance transaction of the first payment read, with this fee."""
    at = api.books.clock.now()
    movement = Movement(name, "charge", "ch_1", "pi_1", 2_600, fee, "USD", None, at, at)
    async with api.books.database.transaction() as session:
        await record_movements(session, [movement], at)


async def rows_of(api: TreasuryApi, payment: str) -> list[Any]:
    return await api.books.payments((await api.payment(payment))["pledge"])


async def test_further_capture_counts_in_the_pledges_drive_and_not_where_the_first_was_released_to(
    api: TreasuryApi,
) -> None:
    drive, other = owned_drive(), owned_drive(slug="spring")
    payment, pledge = await api.paid(drive, 2_600)
    await api.books.consume(other)
    before = (await api.payment(payment))["creator"]
    assert (await api.release(payment, drive="spring")).status == 200
    ours = metadata(payment, pledge, drive.drive_id)
    await api.books.apply([intent_succeeded("pi_2", 2_500, ours), intent_succeeded("pi_3", 2_700, ours)])
    rows = await api.books.payments(pledge)
    assert [(row.drive_id, row.creator_id, row.held) for row in rows] == [
        (other.drive_id, None, False),
        (drive.drive_id, before, False),
        (drive.drive_id, before, True),
    ]


async def test_release_credits_the_creator_named(api: TreasuryApi) -> None:
    drive = owned_drive()
    api.pledges.creators[f"{drive.drive_id}/layla"] = CreatorId("crt_01bbbbbbbbbbbbbbbbbbbbbbbb")
    payment, _ = await api.paid(drive, 2_600)
    unknown = await api.release(payment, creator="nobody")
    assert (unknown.status, unknown.json()["errors"][0]["pointer"]) == (422, "/creator")
    assert (await api.release(payment, creator="layla")).json()["creator"] == "crt_01bbbbbbbbbbbbbbbbbbbbbbbb"
    other, _ = await api.paid(drive, 2_600, intent="pi_2")
    assert (await api.release(other, creator=None)).json()["creator"] is None


async def test_money_of_an_unknown_drive_is_released_by_admins_only(api: TreasuryApi) -> None:
    drive, unknown = owned_drive(), a_drive()
    await api.books.consume(drive)
    await api.books.apply([intent_succeeded("pi_1", 700, {"ataa_drive": unknown.drive_id})])
    await api.books.apply([intent_succeeded("pi_2", 800, {"ataa_pledge": a_pledge(drive).pledge_id})])
    listed = (await api.get("/v1/payments", "held=true", **ADMIN)).json()["data"]
    assert [(each["drive"], each["held"]["reason"]) for each in listed] == [
        (None, "unknown_drive"),
        (unknown.drive_id, "unknown_drive"),
    ]
    nameless, named = (each["id"] for each in listed)
    for payment, status in ((nameless, 422), (named, 404)):
        assert (await api.get(f"/v1/payments/{payment}")).status == 403
        assert (await api.release(payment, drive="winter")).json()["type"] == "/problems/not-your-drive"
        assert (await api.release(payment, caller=ADMIN)).status == status  # no drive is named
        released = await api.release(payment, caller=ADMIN, drive="winter")
        assert (released.status, released.json()["drive"]) == (200, drive.drive_id)
    assert await api.books.drive_balances(drive.drive_id) == {
        "processor_clearing": 1_500,
        "drive_raised": -1_500,
    }


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ({"currency": "EUR"}, "EUR"),
        ({"test": True}, "test"),
        ({"state": DriveState.DRAFT}, "opened"),
    ],
)
async def test_drive_that_cannot_count_the_payment_is_refused(
    api: TreasuryApi, target: dict[str, Any], detail: str
) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600)
    before = await api.payment(payment)
    spring = owned_drive(slug="spring", **target)
    await api.books.consume(spring)
    plain = {"id": spring.drive_id, "slug": "spring", "currency": spring.currency, "test": spring.test}
    api.pledges.drives["spring"] = plain | {"state": spring.state, "partner": spring.partner}
    refused = await api.release(payment, "k", drive="spring")
    assert (refused.status, refused.json()["type"]) == (409, "/problems/drive-does-not-match")
    assert detail in refused.json()["detail"]
    assert await api.payment(payment) == before
    assert (await api.release(payment, "k")).status == 200  # the key was not used up


async def test_bad_release_is_refused_and_changes_nothing(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600)
    neighbours = a_drive(slug="theirs", partner="neighbour")
    await api.books.consume(neighbours)
    before = await api.payment(payment)
    path = f"/v1/payments/{payment}/release"
    bodies: list[Any] = [
        {}, [], None, {"note": ""}, {"note": 1}, {"note": "nul \x00"}, {"note": "x" * 501},
        {"note": "x", "drive": "Bad\x00"}, {"note": "x", "creator": "\ud800"}, {"note": "x", "more": 1},
    ]  # fmt: skip
    for body in bodies:
        assert (await api.post(path, body)).status == 422, body
    assert (await api.release("pay_00000000000000000000000000")).status == 404
    assert (await api.release("pay_\x00")).status == 404
    assert (await api.release(payment, drive="unknown")).json()["detail"] == "No such drive."
    assert (await api.release(payment, drive="theirs")).json()["type"] == "/problems/not-your-drive"
    assert (await api.release(payment, caller={"partner": "neighbour"})).status == 403
    assert (await api.release(payment, caller={"scopes": ("refunds",)})).status == 403
    assert (await api.release(payment, caller={"mode": "test"})).status == 403
    assert await api.payment(payment) == before


async def test_release_is_done_once(api: TreasuryApi) -> None:
    payment, pledge = await api.paid(owned_drive(), 2_600)
    replies = await asyncio.gather(*(api.release(payment) for _ in range(4)))
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409]
    assert (await api.release(payment)).json()["type"] == "/problems/payment-not-held"
    assert len((await api.payment(payment))["decisions"]) == 1
    assert len(await api.books.published(pledge)) == 2


async def test_repeated_key_gets_the_first_answer(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600)
    first, again = await api.release(payment, "k"), await api.release(payment, "k")
    assert (first.body, again.headers.get("idempotency-replayed")) == (again.body, "true")
    assert (await api.release(payment, "k", note="another")).status == 422
    assert (await api.release(payment, "k", caller={"partner": "neighbour"})).status == 403


async def test_webhook_that_is_being_recorded_delays_a_release(api: TreasuryApi, store: str) -> None:
    """A webhook's facts are read before its payment is locked: a release meanwhile would be overlooked."""
    payment, _ = await api.paid(owned_drive(), 2_600)
    event = refund("created", "re_1", "pi_1", 600, "succeeded")
    if store == "sqlite":  # it has one writer at a time
        released, _ = await asyncio.gather(api.release(payment), api.books.apply([event]))
    else:
        async with api.books.database.transaction() as session:
            await lock_intents(session, ["pi_1"])
            releasing = asyncio.create_task(api.release(payment))
            await until(partial(_waits_for_a_lock, api))
            taken = Observation(
                "re_1", FactKind.REFUND, "pi_1", 600, "USD", RefundRank.SUCCEEDED, api.books.clock.now()
            )
            await record(session, [taken], api.books.clock.now())
        released = await releasing
    assert released.status == 200, released.body
    assert await api.books.balances(payment) == {
        "processor_clearing": 2_000, "drive_raised": -2_600, "refunds": 600,
    }  # fmt: skip


async def _waits_for_a_lock(api: TreasuryApi) -> bool:
    waiting = text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with api.books.database.reading() as session:
        return (await session.execute(waiting)).first() is not None


async def test_drive_that_is_known_later_counts_a_payment_released_from_it(api: TreasuryApi) -> None:
    """The pledge's own drive becomes known after an admin counted the money in another one."""
    unknown = a_drive()
    drive = owned_drive(slug="spring")
    pledge = a_pledge(unknown)
    await api.books.consume(drive)
    ours = metadata(None, pledge.pledge_id, unknown.drive_id)
    await api.books.apply([intent_succeeded("pi_1", 2_500, ours)])
    (row,) = await api.books.payments(pledge.pledge_id)
    assert (await api.release(row.id, caller=ADMIN, drive="spring")).status == 200
    await api.books.consume(unknown, pledge)
    (row,) = await api.books.payments(pledge.pledge_id)
    assert (row.drive_id, row.pledged_drive, row.held) == (drive.drive_id, unknown.drive_id, False)
    last = (await api.books.published(pledge.pledge_id))[-1]
    assert (last.drive_id, last.creator_id, last.in_other_drive) == (DriveId(drive.drive_id), None, True)
