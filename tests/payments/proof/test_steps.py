"""The audit finds what was changed in any one store, by payment, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from services.leaderboard import tables as board
from services.leaderboard.matching.tables import pools as counted_pools
from services.payments.disbursements.tables import DISBURSEMENTS
from services.payments.matching.tables import POOLS
from services.payments.proof.state import AuditState
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.tables import FACTS, PAYMENTS
from tests.payments.matching.gifts import add_pool
from tests.payments.proof.audited import Audited, audited, of_payment
from tests.payments.stripe_events import dispute, refund


@pytest.fixture(params=["sqlite", "postgresql"])
async def system(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Audited]:
    async with audited(tmp_path, request.param) as found:
        yield found


async def three_payments(system: Audited) -> list[str]:
    """One paid, one partly refunded, one disputed; all counted."""
    found = [await system.pay(f"pi_{n}", 1_000 * n) for n in (1, 2, 3)]
    await system.books.apply(
        [
            refund("created", "re_2", "pi_2", 500, "succeeded"),
            dispute("created", "dp_3", "pi_3", 3_000, "needs_response"),
        ]
    )
    await system.deliver()
    return found


def assert_clean(state: AuditState) -> None:
    assert (state.found, state.differences, state.settled) == (0, [], True)


async def test_clean_books_have_no_difference_and_sums_that_agree(system: Audited) -> None:
    await three_payments(system)
    state = await system.prove()
    assert_clean(state)
    sums = state.of(None)
    assert (sums.ledger, sums.processor, sums.totals, sums.held, sums.difference) == (
        2_500,
        2_500,
        2_500,
        0,
        0,
    )
    assert (state.payments, state.expected) == (3, 3)
    assert state.log.sequence == state.log.length == 6
    assert state.log.verified and len(state.log.hash) == 64


async def test_drive_that_nobody_gave_to_is_audited(system: Audited) -> None:
    state = await system.prove()
    assert_clean(state)
    assert state.sums.get("USD") is None or state.of(None).ledger == 0


async def test_held_money_is_in_ledger_and_held_and_not_in_totals(system: Audited) -> None:
    await system.pay("pi_1")
    payment = await system.pay("pi_2", 700)
    await system.change(
        "payments", update(PAYMENTS).where(PAYMENTS.c.id == payment).values(currency="EUR", pledge_version=9)
    )
    await system.books.apply([refund("created", "re_2", "pi_2", 200, "succeeded")])  # restates the payment
    await system.deliver()
    state = await system.prove()
    assert_clean(state)
    sums = state.of(None)
    assert (sums.ledger, sums.processor, sums.totals, sums.held) == (3_000, 3_000, 2_500, 500)


@pytest.mark.parametrize(
    ("what", "figures"),
    [
        ("captured", {"payments": 1_001, "facts": 1_000, "ledger": 1_000}),
        ("processor money", {"payments": 1_001, "ledger": 1_000}),
        ("captured", {"payments": 1_001, "leaderboard": 1_000}),
    ],
)
async def test_changed_payment_differs_from_its_facts_postings_and_count(
    system: Audited, what: str, figures: dict[str, int]
) -> None:
    first, *_ = await three_payments(system)
    await system.change("payments", update(PAYMENTS).where(PAYMENTS.c.id == first).values(captured=1_001))
    state = await system.prove()
    assert (what, figures) in of_payment(state, first)
    assert {one.payment for one in state.differences} == {first}
    assert state.of(None).difference == 3


async def test_changed_fact_differs_from_its_payment(system: Audited) -> None:
    _, second, _ = await three_payments(system)
    await system.change("payments", update(FACTS).where(FACTS.c.id == "re_2").values(units=600))
    state = await system.prove()
    assert of_payment(state, second) == [("refunded", {"payments": 500, "facts": 600, "ledger": 500})]
    assert state.of(None).difference == 100
    assert state.of(None).processor == state.of(None).ledger - 100


async def test_payment_without_a_posting_differs_from_the_ledger(system: Audited) -> None:
    """Postings cannot be deleted, so both the payment and its facts are made to claim more."""
    first, *_ = await three_payments(system)
    await system.change("payments", update(PAYMENTS).where(PAYMENTS.c.id == first).values(captured=1_500))
    await system.change("payments", update(FACTS).where(FACTS.c.id == "pi_1").values(units=1_500))
    state = await system.prove()
    assert ("captured", {"payments": 1_500, "facts": 1_500, "ledger": 1_000}) in of_payment(state, first)


async def test_changed_count_of_a_payment_is_found(system: Audited) -> None:
    first, *_ = await three_payments(system)
    changed = update(board.payments).where(board.payments.c.payment_id == first).values(captured=900)
    await system.change("leaderboard", changed)
    state = await system.prove()
    assert of_payment(state, first) == [
        ("captured", {"payments": 1_000, "leaderboard": 900}),
        ("net", {"leaderboard": 900, "log": 1_000}),
    ]
    assert ("captured", {"totals": 6_000, "leaderboard's payments": 5_900}) in of_payment(state, None)


async def test_changed_total_is_found(system: Audited) -> None:
    await three_payments(system)
    await system.change("leaderboard", update(board.drives).values(captured=board.drives.c.captured + 7))
    state = await system.prove()
    assert ("captured", {"totals": 6_007, "leaderboard's payments": 6_000}) in of_payment(state, None)
    assert [what for what, _ in of_payment(state, None)] == ["log", "captured"]
    assert (state.of(None).totals, state.of(None).ledger, state.of(None).difference) == (2_507, 2_500, 7)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"amount": 1_999}, "row 3 does not have the hash of its content"),
        ({"hash": "0" * 64}, "row 3 does not have the hash of its content"),
        (None, "row 4 follows row 2"),
    ],
)
async def test_changed_or_missing_row_of_the_log_is_found(
    system: Audited, changed: dict[str, object] | None, reason: str
) -> None:
    await three_payments(system)
    third = board.drive_log.c.sequence == 3
    statement = update(board.drive_log).values(changed) if changed else delete(board.drive_log)
    await system.change("leaderboard", statement.where(third))
    state = await system.prove()
    assert ("log", {"reason": reason}) in of_payment(state, None)
    assert not state.log.verified


async def test_log_that_ends_early_is_found(system: Audited) -> None:
    await three_payments(system)
    await system.change("leaderboard", delete(board.drive_log).where(board.drive_log.c.sequence == 6))
    state = await system.prove()
    reason = "the log ends with row 5, its drive is at row 6"
    assert ("log", {"reason": reason}) in of_payment(state, None)


async def test_payment_that_is_not_counted_yet_is_in_transit_and_no_difference(system: Audited) -> None:
    await three_payments(system)
    later = await system.pay("pi_4", 4_000)
    state = await system.prove()
    assert (state.found, state.settled, state.in_transit) == (0, False, [later])
    assert (state.of(None).ledger, state.of(None).totals) == (2_500, 2_500)
    await system.deliver()
    assert_clean(await system.prove())


async def test_payment_that_is_counted_between_two_looks_settles(system: Audited) -> None:
    await system.pay("pi_1")
    state = await system.audit.begin(system.known)
    await system.audit.step(state)
    assert len(state.in_transit) == 1
    await system.deliver()
    while state.stage != "done":
        await system.audit.step(state)
    assert_clean(state)
    assert state.of(None).ledger == state.of(None).totals == 2_500


async def test_payment_captured_and_counted_after_its_page_was_read_is_no_difference(system: Audited) -> None:
    await three_payments(system)
    state = await system.audit.begin(system.known)
    await system.audit.step(state)
    await system.books.apply([refund("created", "re_1", "pi_1", 400, "succeeded")])
    await system.pay("pi_4", 4_000)
    await system.deliver()
    while state.stage != "done":
        await system.audit.step(state)
    assert_clean(state)


async def test_event_that_was_lost_is_a_difference_once_everything_else_has_arrived(system: Audited) -> None:
    await three_payments(system)
    lost = await system.pay("pi_4", 4_000)
    await system.change("payments", delete(system.books.database.messaging_tables.outbox))
    system.behind = 1
    assert (await system.prove()).in_transit == [lost]
    system.behind = 0
    state = await system.prove()
    assert of_payment(state, lost) == [("version", {"payments": 1, "leaderboard": None})]
    assert state.of(None).difference == 4_000


async def test_event_that_was_lost_is_a_difference_once_later_ones_have_arrived(system: Audited) -> None:
    """While donations flow, nothing is ever empty; leaderboard states how far it has counted."""
    lost = await system.pay("pi_1")
    system.behind = 1
    system.complete.moment = system.books.clock.now() + timedelta(seconds=20)
    assert (await system.prove()).in_transit == [lost]
    system.complete.moment += timedelta(minutes=1)
    assert of_payment(await system.prove(), lost) == [("version", {"payments": 1, "leaderboard": None})]


async def test_payment_that_only_leaderboard_has_is_found(system: Audited) -> None:
    first, *_ = await three_payments(system)
    renamed = update(board.payments).where(board.payments.c.payment_id == first)
    await system.change("leaderboard", renamed.values(payment_id="pay_0"))
    state = await system.prove()
    assert ("payment", {"payments": None, "leaderboard": 1_000}) in of_payment(state, "pay_0")
    assert ("version", {"payments": 1, "leaderboard": None}) in of_payment(state, first)


async def test_newer_count_than_the_payment_is_found(system: Audited) -> None:
    """As after payments' database was restored from a backup."""
    first, *_ = await three_payments(system)
    await system.change("leaderboard", update(board.payments).values(version=9))
    state = await system.prove()
    assert ("version", {"payments": 1, "leaderboard": 9}) in of_payment(state, first)


async def test_payment_that_is_counted_for_another_drive_is_found(system: Audited) -> None:
    first, *_ = await three_payments(system)
    moved = update(board.payments).where(board.payments.c.payment_id == first)
    await system.change("leaderboard", moved.values(drive_id="drv_elsewhere"))
    state = await system.prove()
    found = of_payment(state, first)
    assert ("drive", {"payments": system.drive.drive_id, "leaderboard": "drv_elsewhere"}) in found


async def matched(system: Audited) -> str:
    """A gift that a pool matches, counted; returns the pool."""
    pool = await add_pool(system.books, system.drive.drive_id, 100_000)
    await system.pay("pi_1", 2_500)
    await system.deliver()
    return pool


async def test_pools_are_compared_with_leaderboards_states_of_them(system: Audited) -> None:
    pool = await matched(system)
    assert (await system.prove()).found == 0
    await system.change("leaderboard", update(counted_pools).values(used=2_400))
    (found,) = [one for one in (await system.prove()).differences if one.what == f"matched by {pool}"]
    assert found.figures == {"matching pools": 2_500, "leaderboard": 2_400}
    assert (found.currency, found.minor_units) == ("USD", 100)


async def test_pool_whose_newest_state_is_in_transit_differs_once_everything_has_arrived(
    system: Audited,
) -> None:
    pool = await matched(system)
    await system.change("leaderboard", update(counted_pools).values(version=1))
    system.behind = 1
    assert f"matched by {pool}" not in {one.what for one in (await system.prove()).differences}
    system.behind = 0
    assert f"matched by {pool}" in {one.what for one in (await system.prove()).differences}


async def test_pool_that_only_one_of_them_has_differs(system: Audited) -> None:
    pool = await matched(system)
    await system.change("payments", delete(POOLS))
    (found,) = [one for one in (await system.prove()).differences if one.what == f"matched by {pool}"]
    assert found.figures == {"matching pools": None, "leaderboard": 2_500}


async def test_zakat_in_its_accounts_is_no_difference(system: Audited) -> None:
    await system.pay("pi_1", purpose="zakat")
    await system.books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])
    await system.pay("pi_2")
    await system.deliver()
    assert_clean(await system.prove())


@pytest.mark.parametrize("was_zakat", [True, False])
async def test_money_in_the_accounts_of_the_other_fund_is_a_difference(
    system: Audited, was_zakat: bool
) -> None:
    payment = await system.pay("pi_1", purpose="zakat" if was_zakat else None)
    await system.books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])
    await system.deliver()
    await system.change("payments", update(PAYMENTS).values(zakat=not was_zakat))
    state = await system.prove()
    assert of_payment(state, payment) == [
        ("captured", {"payments": 2_500, "facts": 2_500, "ledger": 0}),
        ("refunded", {"payments": 500, "facts": 500, "ledger": 0}),
        ("money in the accounts of the other fund", {"payments": 0, "ledger": 3_000}),
    ]


async def test_a_disbursement_that_names_another_fund_than_it_was_posted_in_is_a_difference(
    system: Audited,
) -> None:
    await system.pay("pi_1", purpose="zakat")
    await system.deliver()
    now = system.books.clock.now()
    row = {
        "id": "dsb_1", "drive_id": system.drive.drive_id, "partner": "charity", "status": "approved",
        "asked_by": "key_a", "test": False, "made_at": now, "beneficiary": "Relief", "units": 300,
        "currency": "USD", "paid_at": now, "reference": "4", "evidence": "x", "fund": "zakat",
    }  # fmt: skip
    posting = NewPosting("beneficiary_payable_zakat", "disbursed_zakat", 300, "USD", "dsb_1#1")
    async with system.books.database.transaction() as session:
        await session.execute(insert(DISBURSEMENTS), [row])
        await ledger.post(session, [(posting, None, system.drive.drive_id)], now)
    assert_clean(await system.prove())
    await system.change("payments", update(DISBURSEMENTS).values(fund="general"))
    state = await system.prove()
    assert [(one.what, one.figures, one.minor_units) for one in state.differences] == [
        ("paid out of the general fund", {"disbursements": 300, "ledger": 0}, 300),
        ("paid out of the zakat fund", {"disbursements": 0, "ledger": 300}, 300),
    ]
