"""Repeated and late reports: a second capture, a repeated refusal, a drive known after its payments."""

from __future__ import annotations

from sqlalchemy import func, select, update

from services.payments.checkout.attempts import AttemptOutcome, SentAttempt
from services.payments.handlers import HELD_BATCH
from services.payments.queries import read_checkouts
from services.payments.tables import PAYMENTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata, refund
from tests.rounds import apply_waiting


async def shown(books: Books, pledge: str) -> str | None:
    async with books.database.reading() as session:
        status: str | None = (await read_checkouts(session, [pledge], "", books.clock.now()))[pledge][
            "status"
        ]
    return status


async def test_a_pledge_paid_twice_is_paid_until_both_payments_are_refunded(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    for intent in ("pi_1", "pi_2"):
        await books.apply([intent_succeeded(intent, 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    await books.apply([refund("created", "re_1", "pi_1", 2_500, "succeeded")])
    assert await shown(books, pledge.pledge_id) == "paid"
    await books.apply([refund("created", "re_2", "pi_2", 2_500, "succeeded")])
    assert await shown(books, pledge.pledge_id) == "refunded"


async def test_all_suspense_money_of_a_drive_counts_once_the_drive_is_known(books: Books) -> None:
    drive = a_drive()
    many = HELD_BATCH + 1
    await books.apply(
        [intent_succeeded(f"pi_{n}", 100, metadata(None, None, drive.drive_id)) for n in range(many)]
    )
    while await apply_waiting(books.applier):
        pass
    await books.consume(drive)
    async with books.database.reading() as session:
        of_state = select(PAYMENTS.c.held, func.count()).group_by(PAYMENTS.c.held)
        assert [tuple(row) for row in await session.execute(of_state)] == [(False, many)]


async def test_a_refusal_recorded_twice_starts_one_new_attempt(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    payment = (await books.payments(pledge.pledge_id))[0].id
    checkout_worker = books.checkout_worker(FakeProcessor())

    async def take_ticket(attempt: int) -> None:
        async with books.database.transaction() as session:
            await session.execute(update(PAYMENTS).values(checkout="opening", attempts=attempt))

    refusal = AttemptOutcome(SentAttempt(f"{payment}.1", payment, 1, {}, books.clock.now()), None, "refused")
    states = []
    for attempt in (1, 2):
        await take_ticket(attempt)
        await checkout_worker._outcomes.run_batch([refusal])
        states.append((await books.payments(pledge.pledge_id))[0].checkout)
    assert states == ["waiting", "opening"]
