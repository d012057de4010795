"""What a dispute subtracts from a donation: by Stripe's balance, or estimated where it gives no amount."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from services.payments.domain import FactKind, Observation
from services.payments.queries import read_books
from services.payments.reconciliation.lookups import Reconciler
from services.payments.recording import estimates
from services.payments.recording.ledger import CLEARING
from services.payments.stripe.objects import dispute_observation, refund_observation
from services.payments.tables import FACTS, LOOKUPS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund
from tests.rounds import run_lookups

T = 1_700_000_000
"""A Unix time; the disputes of these tests are reported at T, T + 1, …"""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def a_donation(books: Books, units: int = 2_500, currency: str = "usd") -> str:
    """A paid pledge of a known drive; returns the pledge's id."""
    drive = a_drive(currency.upper())
    pledge = a_pledge(drive, units)
    await books.consume(drive, pledge)
    ours = metadata(None, pledge.pledge_id, drive.drive_id)
    await books.apply([intent_succeeded("pi_1", units, ours, currency)])
    return pledge.pledge_id


async def net(books: Books, pledge: str) -> int:
    """What is left of a donation; fails where the ledger differs."""
    (row,) = await books.payments(pledge)
    left: int = row.captured - row.refunded - row.disputed
    assert (await books.balances(row.id)).get(CLEARING, 0) == left
    assert not any((await books.drift()).values())
    (*_, published) = await books.published(pledge)
    assert (published.status, published.disputed.minor_units, published.version) == (
        row.status,
        row.disputed,
        row.version,
    )
    return left


async def marked(books: Books) -> list[str]:
    async with books.database.reading() as session:
        rows = await session.execute(select(FACTS.c.doubt).where(FACTS.c.doubt.is_not(None)))
        return [row.doubt for row in rows]


async def test_a_full_dispute_lost_after_a_partial_refund_counts_the_rest(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 1_000, "succeeded")])
    withdrawn = dispute("funds_withdrawn", "dp_1", "pi_1", 2_500, "needs_response", moves=[-2_500], at=T)
    await books.apply([withdrawn])
    assert await net(books, pledge) == -1_000  # as Stripe's balance is, until the bank decides
    assert await books.database.read_whole(read_books) == {"USD": "-10.00"}
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "lost", moves=[-2_500, 1_000], at=T + 1)])
    assert await net(books, pledge) == 0
    (row,) = await books.payments(pledge)
    assert (row.status, row.refunded, row.disputed) == ("disputed", 1_000, 1_500)
    assert await marked(books) == []


async def test_a_lost_dispute_that_withdrew_the_refunded_part_is_looked_up(books: Books) -> None:
    """Stripe reports its return in a separate event, which the endpoint may not be subscribed to."""
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 1_000, "succeeded")])
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "lost", moves=[-2_500], at=T)])
    assert (await net(books, pledge), await marked(books)) == (-1_000, ["not_returned"])
    await ask(books, dispute("closed", "dp_1", "pi_1", 2_500, "lost", moves=[-2_500, 1_000], at=T + 9))
    assert (await net(books, pledge), await marked(books)) == (0, [])


async def test_without_a_balance_a_dispute_counts_at_most_what_refunds_left(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 1_000, "succeeded")])
    for place, (status, left) in enumerate([("needs_response", 0), ("lost", 0), ("won", 1_500)]):
        await books.apply([dispute("updated", "dp_1", "pi_1", 2_500, status, at=T + place)])
        assert await net(books, pledge) == left


async def test_a_failed_refund_leaves_more_to_a_dispute_without_balance(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 1_000, "pending")])
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "lost", at=T)])
    await books.apply([refund("failed", "re_1", "pi_1", 1_000, "failed")])
    assert await net(books, pledge) == 0
    assert (await books.payments(pledge))[0].disputed == 2_500


async def test_two_disputes_count_no_more_than_the_donation_unless_stripe_reports_more(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("created", "dp_1", "pi_1", 2_000, "lost", at=T)])
    await books.apply([dispute("created", "dp_2", "pi_1", 2_000, "needs_response", at=T + 1)])
    assert await net(books, pledge) == 0
    await books.apply([dispute("closed", "dp_2", "pi_1", 2_000, "won", at=T + 2)])
    assert await net(books, pledge) == 500


async def test_a_won_dispute_that_is_lost_later_counts(books: Books) -> None:
    pledge = await a_donation(books)
    won = dispute("closed", "dp_1", "pi_1", 2_500, "won", moves=[-2_500, 2_500], at=T + 1)
    lost = dispute("closed", "dp_1", "pi_1", 2_500, "lost", moves=[-2_500, 2_500, -2_500], at=T + 2)
    await books.apply([won])
    assert await net(books, pledge) == 2_500
    await books.apply([lost])
    assert await net(books, pledge) == 0
    late = dispute("created", "dp_1", "pi_1", 2_500, "needs_response", moves=[], at=T)
    await books.apply([late, won | {"id": "evt_won_again"}])  # Stripe retries for three days, in any order
    assert await net(books, pledge) == 0


async def test_a_lost_dispute_that_is_won_later_counts_nothing(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "won", at=T + 2)])
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "lost", at=T + 1)])
    assert await net(books, pledge) == 2_500


async def test_of_two_outcomes_in_one_second_the_lost_one_counts_and_is_looked_up(books: Books) -> None:
    pledge = await a_donation(books)
    for status in ("lost", "won"):
        await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, status, at=T)])
    assert await net(books, pledge) == 0
    assert await marked(books) == ["same_second"]
    answered = dispute("closed", "dp_1", "pi_1", 2_500, "won", moves=[-2_500, 2_500], at=T + 60)
    await ask(books, answered)
    assert await net(books, pledge) == 2_500
    assert await marked(books) == []


async def test_within_one_second_a_closed_dispute_takes_precedence_over_an_open_one(books: Books) -> None:
    pledge = await a_donation(books)
    for status in ("won", "needs_response"):
        await books.apply([dispute("updated", "dp_1", "pi_1", 2_500, status, at=T)])
    assert await net(books, pledge) == 2_500


async def test_a_won_dispute_counts_until_the_money_is_returned(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("closed", "dp_1", "pi_1", 2_500, "won", moves=[-2_500], at=T)])
    assert await net(books, pledge) == 0
    assert await marked(books) == ["not_returned"]
    back = dispute("funds_reinstated", "dp_1", "pi_1", 2_500, "won", moves=[-2_500, 2_500], at=T)
    await books.apply([back])  # in the same second, with more balance transactions
    assert await net(books, pledge) == 2_500
    assert await marked(books) == []


@pytest.mark.parametrize(("case_type", "left"), [("resolution", 0), ("block", 2_500)])
async def test_a_prevented_dispute_counts_by_its_case_type(books: Books, case_type: str, left: int) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("created", "dp_1", "pi_1", 2_500, "prevented", case_type=case_type, at=T)])
    assert await net(books, pledge) == left
    assert await marked(books) == []


async def test_an_inquiry_counts_nothing_until_it_becomes_a_dispute(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("created", "dp_1", "pi_1", 2_500, "warning_needs_response", moves=[], at=T)])
    assert await net(books, pledge) == 2_500
    withdrawn = dispute("funds_withdrawn", "dp_1", "pi_1", 2_500, "needs_response", moves=[-2_500], at=T + 9)
    await books.apply([withdrawn])
    assert await net(books, pledge) == 0


async def test_a_dispute_in_another_currency_is_logged_once_and_settled_by_the_balance(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])
    with capture_logs() as logged:
        for place, kind in enumerate(["created", "updated", "updated"]):
            found = dispute(kind, "dp_1", "pi_1", 900, "needs_response", currency="eur", at=T + place)
            await books.apply([found])
    (line,) = [each for each in logged if each["log_level"] in ("warning", "error")]
    assert (line["event"], line["reason"], line["counted"]) == (
        "payment.fact_in_doubt", "other_currency", 2_000
    )  # fmt: skip
    assert await net(books, pledge) == 0
    async with books.database.reading() as session:
        assert await estimates.count(session) == {"other_currency": 1}
    told = dispute("funds_withdrawn", "dp_1", "pi_1", 900, "needs_response", currency="eur", moves=[-970])
    await books.apply([told])
    assert await net(books, pledge) == 1_030  # withdrawn in the donation's currency
    async with books.database.reading() as session:
        assert await estimates.count(session) == {}


async def test_a_balance_in_the_accounts_currency_is_not_used_as_the_donations(books: Books) -> None:
    pledge = await a_donation(books, 10_000, "eur")
    settled: dict[str, Any] = {"currency": "eur", "settled_in": "usd"}
    steps = [
        ("funds_withdrawn", "needs_response", [-11_000], 0),
        ("closed", "won", [-11_000], 0),
        ("funds_reinstated", "won", [-11_000, 10_900], 10_000),
    ]
    for place, (kind, status, moves, left) in enumerate(steps):
        found = dispute(kind, "dp_1", "pi_1", 10_000, status, moves=moves, at=T + place, **settled)
        await books.apply([found])
        assert await net(books, pledge) == left, status


async def test_a_partial_return_in_another_currency_is_estimated_and_marked(books: Books) -> None:
    pledge = await a_donation(books, 10_000, "eur")
    await books.apply([refund("created", "re_1", "pi_1", 4_000, "succeeded", currency="eur")])
    lost = dispute(
        "closed", "dp_1", "pi_1", 10_000, "lost", currency="eur", settled_in="usd", moves=[-11_000, 4_360]
    )
    await books.apply([lost])
    assert await net(books, pledge) == 0
    assert await marked(books) == ["other_currency"]


async def test_equal_sums_withdrawn_and_returned_count_nothing_in_any_currency(books: Books) -> None:
    pledge = await a_donation(books, 10_000, "eur")
    lost = dispute("closed", "dp_1", "pi_1", 9_000, "lost", moves=[-990, 990], settled_in="gbp", at=T)
    await books.apply([lost])
    assert await net(books, pledge) == 10_000


async def test_balances_in_two_currencies_are_not_added_up(books: Books) -> None:
    pledge = await a_donation(books)
    found = dispute("closed", "dp_1", "pi_1", 2_500, "lost", moves=[-2_500, 1_000], at=T)
    found["data"]["object"]["balance_transactions"][1]["currency"] = "eur"
    await books.apply([found])
    assert await net(books, pledge) == 0
    assert await marked(books) == ["other_currency"]


async def test_a_dispute_is_looked_up_until_its_amount_is_no_estimate(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([dispute("created", "dp_1", "pi_1", 2_300, "charge_refunded", at=T)])
    assert await net(books, pledge) == 200
    same = dispute("created", "dp_1", "pi_1", 2_300, "charge_refunded", at=T + 1)
    assert await ask(books, same) == ["pi_1"]
    async with books.database.reading() as session:
        (question,) = (await session.execute(select(LOOKUPS))).all()
    assert (question.kind, question.tries) == ("doubts", 1)
    known = dispute("created", "dp_1", "pi_1", 2_300, "won", moves=[-2_300, 2_300], at=T + 2)
    assert await ask(books, known) == ["pi_1"]
    assert await net(books, pledge) == 2_500
    assert await ask(books, known) == []


async def test_a_refund_without_a_status_is_read_from_stripe(books: Books) -> None:
    pledge = await a_donation(books)
    await books.apply([refund("created", "re_1", "pi_1", 700, None)])
    processor = FakeProcessor()
    known = dict(refund("updated", "re_1", "pi_1", 700, "failed")["data"]["object"])
    processor.refunds["pi_1"] = [refund_of(known)]
    books.clock.move(3)
    assert await run_lookups(Reconciler(books.database, processor, books.clock)) == 1
    assert await net(books, pledge) == 2_500
    assert await marked(books) == []


async def test_a_capture_corrected_upward_is_announced_with_the_new_sum(books: Books) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    ours = metadata(None, pledge.pledge_id, drive.drive_id)
    for units in (2_500, 2_900, 2_500, 2_900):
        await books.apply([intent_succeeded("pi_1", units, ours)])
    published = await books.published(pledge.pledge_id)
    assert [(each.version, each.captured.minor_units) for each in published] == [(1, 2_500), (2, 2_900)]
    assert {each.captured_at for each in published} == {published[0].captured_at}


def refund_of(thing: dict[str, Any]) -> Observation:
    found = refund_observation(thing)
    assert found is not None
    assert found.kind is FactKind.REFUND
    return found


async def ask(books: Books, event: dict[str, Any]) -> list[str]:
    """Run all due lookups, with this dispute as Stripe's response; returns the intents looked up."""
    processor = FakeProcessor()
    moment = books.clock.now().fromtimestamp(event["created"], books.clock.now().tzinfo)
    found = dispute_observation(event["data"]["object"], moment)
    assert found is not None
    processor.disputes["pi_1"] = [found]
    books.clock.move(3_601)
    await run_lookups(Reconciler(books.database, processor, books.clock))
    return sorted(set(processor.looked_up))
