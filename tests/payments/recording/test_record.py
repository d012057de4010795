"""How facts change payments and the ledger, case by case."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from backbone.contracts import PledgeChanged, PledgeStatus
from backbone.money import Money
from services.payments.queries import quarantined_webhooks
from services.payments.tables import FACTS, LOOKUPS, POSTINGS, QUARANTINED, WEBHOOKS
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.watermark import oldest_waiting
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import (
    OURS,
    an_event,
    as_stored,
    dispute,
    intent_succeeded,
    metadata,
    refund,
    session_completed,
)
from tests.waiting import until


async def test_a_capture_before_its_pledge_counts_without_creator_until_the_pledge_arrives(
    books: Books,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    await books.consume(pledge)
    first, second = await books.published(pledge.pledge_id)
    assert (first.version, first.creator_id, first.held) == (1, None, False)
    assert (second.version, second.creator_id, second.donor_id) == (2, pledge.creator_id, pledge.donor_id)


@pytest.mark.parametrize("together", [True, False])
async def test_payment_states_whether_its_donor_is_named(books: Books, together: bool) -> None:
    drive = a_drive()
    pledge = a_pledge(drive, anonymous=False)
    # A later state does not say it again.
    changed = PledgeChanged(**pledge.model_dump() | {"version": 2, "anonymous": None, "locale": "ar"})
    await books.consume(drive)
    if together:
        await books.consume(pledge, changed)
    else:
        await books.consume(pledge)
        await books.consume(changed)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    assert (await books.published(pledge.pledge_id))[-1].anonymous is False


async def test_payment_of_an_unknown_pledge_names_nobody(books: Books) -> None:
    drive = a_drive()
    unknown = a_pledge(drive).pledge_id
    await books.consume(drive)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, unknown, drive.drive_id))])
    assert [event.anonymous for event in await books.published(unknown)] == [None]


async def test_payment_counts_in_its_pledges_drive_whatever_its_metadata_names(books: Books) -> None:
    """So the moderators of the drive on whose screens a text is are those who decide about it."""
    drive, other = a_drive(), a_drive()
    late, known = a_pledge(drive), a_pledge(drive)
    await books.consume(drive, other, known)
    for number, pledge in enumerate((late, known)):
        named = metadata(None, pledge.pledge_id, other.drive_id)
        await books.apply([intent_succeeded(f"pi_{number}", 2_500, named)])
    await books.consume(late)
    drives = [event.drive_id for event in await books.published(late.pledge_id)]
    assert drives == [other.drive_id, drive.drive_id]
    assert [event.drive_id for event in await books.published(known.pledge_id)] == [drive.drive_id]


async def test_money_for_an_unknown_drive_is_in_suspense_until_the_drive_is_known(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    (row,) = await books.payments(pledge.pledge_id)
    assert await books.balances(row.id) == {"processor_clearing": 2_500, "held": -2_500}
    await books.consume(drive)
    assert await books.balances(row.id) == {"processor_clearing": 2_500, "drive_raised": -2_500}
    assert [event.held for event in await books.published(pledge.pledge_id)] == [True, False]


async def test_with_hold_foreign_unmarked_money_goes_to_suspense(tmp_path: Path) -> None:
    async with open_books(tmp_path, ours=OurAccount(hold_foreign=True)) as books:
        await books.apply([intent_succeeded("pi_1", 700, {})])
        async with books.database.reading() as session:
            (posting,) = (await session.execute(select(POSTINGS))).all()
    assert (posting.debit, posting.credit, posting.units) == ("processor_clearing", "held", 700)


async def test_a_capture_in_another_currency_than_the_pledges_goes_to_suspense(books: Books) -> None:
    drive = a_drive("EUR")
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    payment = (await books.payments(pledge.pledge_id))[0].id
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(payment, pledge.pledge_id, drive.drive_id))])
    assert await books.balances(payment) == {"processor_clearing": 2_500, "held": -2_500}
    (published,) = await books.published(pledge.pledge_id)
    assert published.held
    assert published.captured == Money(2_500, "USD")


@pytest.mark.parametrize("captured", [2_499, 4_000])
@pytest.mark.parametrize("pledge_first", [True, False])
async def test_another_amount_than_was_pledged_is_held(
    books: Books, captured: int, pledge_first: bool
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive, 2_500)
    await books.consume(drive, *([pledge] if pledge_first else []))
    await books.apply([intent_succeeded("pi_1", captured, metadata(None, pledge.pledge_id, drive.drive_id))])
    await books.consume(pledge)
    published = (await books.published(pledge.pledge_id))[-1]
    assert (published.captured.minor_units, published.held) == (captured, True)
    (row,) = await books.payments(pledge.pledge_id)
    assert (row.held_reason, row.held_since is None) == ("other_amount", False)
    assert await books.balances(row.id) == {"processor_clearing": captured, "held": -captured}


async def test_a_refund_of_held_money_leaves_suspense(books: Books) -> None:
    pledge = await books.paid_pledge(2_600, 2_500)
    (row,) = await books.payments(pledge)
    await books.apply([refund("created", "re_1", "pi_1", 600, "succeeded")])
    assert await books.balances(row.id) == {"processor_clearing": 2_000, "held": -2_000}
    await books.apply([refund("failed", "re_1", "pi_1", 600, "failed")])
    assert await books.balances(row.id) == {"processor_clearing": 2_600, "held": -2_600}


async def test_a_payment_that_moves_to_another_drive_moves_in_the_ledger(books: Books) -> None:
    drive, other = a_drive(), a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, other)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, other.drive_id))])
    await books.apply([refund("created", "re_1", "pi_1", 600, "succeeded")])
    await books.consume(pledge)
    counted = {"processor_clearing": 1_900, "drive_raised": -2_500, "refunds": 600}
    assert await books.drive_balances(drive.drive_id) == counted
    assert await books.drive_balances(other.drive_id) == {}


async def test_a_second_capture_on_a_pledge_is_a_payment_of_its_own(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    payment = (await books.payments(pledge.pledge_id))[0].id
    ours = metadata(payment, pledge.pledge_id, drive.drive_id)
    await books.apply([intent_succeeded("pi_1", 2_500, ours), intent_succeeded("pi_2", 2_500, ours)])
    await books.apply([intent_succeeded("pi_3", 2_500, ours), session_completed("cs_2", "pi_2", 2_500, ours)])
    rows = await books.payments(pledge.pledge_id)
    assert [(row.capture_index, row.intent, row.captured) for row in rows] == [
        (0, "pi_1", 2_500),
        (1, "pi_2", 2_500),
        (2, "pi_3", 2_500),
    ]
    assert {row.creator_id for row in rows} == {pledge.creator_id}
    assert not any((await books.drift()).values())


async def test_a_second_capture_in_the_same_second_is_announced(
    books: Books,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    payment = (await books.payments(pledge.pledge_id))[0].id
    ours = metadata(payment, pledge.pledge_id, drive.drive_id)
    for intent in ("pi_1", "pi_2"):
        await books.apply([intent_succeeded(intent, 2_500, ours) | {"created": 1_700_000_000}])
    published = await books.published(pledge.pledge_id)
    assert {event.payment_id for event in published} == {
        row.id for row in await books.payments(pledge.pledge_id)
    }
    assert [(event.version, event.captured.minor_units) for event in published] == [(1, 2_500), (1, 2_500)]


async def test_a_refund_of_an_unknown_payment_is_kept_and_looked_up_after_ten_minutes(
    books: Books,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([refund("created", "re_1", "pi_1", 500, "pending")])
    async with books.database.reading() as session:
        (question,) = (await session.execute(select(LOOKUPS))).all()
    assert (question.intent, question.kind) == ("pi_1", "intent")
    assert (question.ask_at - books.clock.now()).total_seconds() == 600
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    (published,) = await books.published(pledge.pledge_id)
    assert (published.status, published.refunded.minor_units) == ("partly_refunded", 500)


async def test_a_failed_refund_and_a_won_dispute_count_nothing(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    await books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])
    await books.apply([dispute("created", "dp_1", "pi_1", 2_000, "needs_response")])
    await books.apply([dispute("funds_withdrawn", "dp_1", "pi_1", 2_000, "needs_response")])
    payment = (await books.payments(pledge.pledge_id))[0].id
    assert await books.balances(payment) == {"refunds": 500, "disputes": 2_000, "drive_raised": -2_500}
    await books.apply([refund("failed", "re_1", "pi_1", 500, "failed")])
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_000, "won")])
    assert await books.balances(payment) == {"processor_clearing": 2_500, "drive_raised": -2_500}
    statuses = [event.status for event in await books.published(pledge.pledge_id)]
    assert statuses == ["captured", "partly_refunded", "disputed", "disputed", "captured"]


async def test_a_pledges_new_creator_is_announced_and_an_unchanged_state_is_not(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    echo = PledgeChanged(**pledge.model_dump() | {"version": 2, "status": PledgeStatus.PAID})
    await books.consume(echo, pledge)
    assert len(await books.published(pledge.pledge_id)) == 1
    await books.consume(PledgeChanged(**echo.model_dump() | {"version": 3, "creator_id": None}))
    assert [event.creator_id for event in await books.published(pledge.pledge_id)] == [
        pledge.creator_id,
        None,
    ]


async def test_a_pledge_cancelled_in_the_queue_opens_no_checkout(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    cancelled = PledgeChanged(**pledge.model_dump() | {"version": 2, "status": PledgeStatus.CANCELLED})
    await books.consume(drive, pledge, cancelled)
    assert [row.checkout for row in await books.payments(pledge.pledge_id)] == ["none"]


async def test_tickets_are_numbered_in_the_order_of_the_pledges(books: Books) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in range(5)]
    await books.consume(drive, *pledges)
    numbers = [(await books.payments(pledge.pledge_id))[0].number for pledge in pledges]
    assert numbers == sorted(numbers)


async def test_an_unreadable_webhook_is_quarantined_and_the_others_are_applied(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    broken = an_event("refund.created", {"id": "re_1", "payment_intent": "pi_1"})
    good = intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))
    await books.apply([broken, good])
    async with books.database.reading() as session:
        quarantined = (await session.execute(select(WEBHOOKS).where(WEBHOOKS.c.state == QUARANTINED))).all()
        assert await oldest_waiting(session) is None
    assert [row.event_id for row in quarantined] == [broken["id"]]
    assert "currency" in quarantined[0].reason
    assert (await books.payments(pledge.pledge_id))[0].captured == 2_500


async def test_a_quarantined_webhook_counts_as_not_drained_and_is_retried(books: Books) -> None:
    broken = an_event("refund.created", {"id": "re_1", "payment_intent": "pi_1"})
    await books.apply([broken])
    async with books.database.reading() as session:
        assert await quarantined_webhooks(session) == 1
    await repair(books, intent_succeeded("pi_1", 2_500, OURS))
    stop = asyncio.Event()
    applying = asyncio.create_task(Applier(books.database, books.store, books.clock, OurAccount()).run(stop))

    async def applied() -> bool:
        async with books.database.reading() as session:
            return await quarantined_webhooks(session) == 0 and await oldest_waiting(session) is None

    await until(applied)
    stop.set()
    await applying
    async with books.database.reading() as session:
        (posting,) = (await session.execute(select(POSTINGS))).all()
    assert (posting.debit, posting.units) == ("processor_clearing", 2_500)


async def repair(books: Books, event: dict[str, Any]) -> None:
    """As a newer version would: the unreadable event can be read now."""
    async with books.database.transaction() as session:
        await session.execute(update(WEBHOOKS).values(body=json.dumps(event).encode(), type=event["type"]))


async def test_a_watermark_is_never_later_than_a_webhook_not_yet_applied(books: Books) -> None:
    await books.store.keep_all([as_stored(intent_succeeded("pi_1", 100, {}))])
    async with books.database.reading() as session:
        assert await oldest_waiting(session) == books.clock.now()


async def test_personal_details_are_removed_from_applied_webhooks(books: Books) -> None:
    await books.apply([session_completed("cs_1", "pi_1", 100, OURS)])
    async with books.database.reading() as session:
        (row,) = (await session.execute(select(WEBHOOKS))).all()
    assert b"donor@example.org" not in row.body
    assert b'"id":"cs_1"' in row.body


async def test_text_no_store_takes_is_escaped(books: Books) -> None:
    ours = metadata(None, "plg_\x00\ud800", None)
    await books.apply([intent_succeeded("pi_1", 100, ours)])
    async with books.database.reading() as session:
        (fact,) = (await session.execute(select(FACTS))).all()
    assert fact.pledge_id == "plg_\\u0000\\ud800"


async def test_postings_are_never_changed_nor_deleted(books: Books) -> None:
    await books.apply([intent_succeeded("pi_1", 100, OURS)])
    for statement in (update(POSTINGS).values(units=1), delete(POSTINGS)):
        with pytest.raises(DBAPIError, match="never changed"):
            async with books.database.transaction() as session:
                await session.execute(statement)
