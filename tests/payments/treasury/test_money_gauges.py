"""What waits for a person is shown by gauges; an event itself sets none of them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import insert, update

from backbone.ids import DriveId
from services.payments.domain import DisputeRank, FactKind, Observation
from services.payments.matching.tables import POOLS
from services.payments.recording.audit import LedgerAudit
from services.payments.recording.record import record
from services.payments.settlement.tables import PAYOUTS
from services.payments.tables import PAYMENTS
from services.payments.treasury.money_gauges import MoneyGauges
from tests.payments.books import Books
from tests.payments.harness import a_drive, a_pledge


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shown(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(f"ataa_{name}", labels)
    assert value is not None, name
    return value


def gauges(books: Books) -> MoneyGauges:
    return MoneyGauges(books.database, books.clock)


async def test_without_money_that_waits_every_gauge_is_zero(books: Books) -> None:
    await gauges(books).read()
    names = ("held_oldest_seconds", "disputes_open", "refunds_owed", "payouts_not_compared",
             "checkouts_oldest_waiting_seconds")  # fmt: skip
    assert {name: shown(name) for name in names} == dict.fromkeys(names, 0.0)
    assert shown("matching_least_left_ratio") == 1.0
    assert math.isnan(shown("dispute_deadline_seconds"))


async def test_held_payments_are_counted_by_reason_and_age(books: Books) -> None:
    await books.paid_pledge(2_600, pledged=2_500)
    books.clock.move(3_600)
    await gauges(books).read()
    assert shown("held_payments", reason="other_amount") == 1
    assert shown("held_minor_units", currency="USD") == 2_600
    assert shown("held_oldest_seconds") == pytest.approx(3_600, abs=5)


@pytest.mark.parametrize("reason", [None, "of_a_later_version"])
async def test_held_payment_without_a_known_reason_is_counted_and_stops_no_other_gauge(
    books: Books, reason: str | None
) -> None:
    await books.paid_pledge(2_600, pledged=2_500)
    async with books.database.transaction() as session:
        await session.execute(update(PAYMENTS).values(held_reason=reason))
    await gauges(books).read()
    assert (
        shown("held_payments", reason="other_currency"),
        shown("held_payments", reason="other_amount"),
    ) == (1, 0)
    assert shown("held_minor_units", currency="USD") == 2_600


async def test_open_dispute_counts_down_to_its_deadline_until_evidence_is_submitted(books: Books) -> None:
    await books.paid_pledge()
    now = books.clock.now()

    async def report(rank: DisputeRank, due_in: timedelta | None, after_s: int) -> None:
        told_at = now + timedelta(seconds=after_s)
        due_at = None if due_in is None else now + due_in
        seen = Observation(
            "dp_1", FactKind.DISPUTE, "pi_1", 2_500, "USD", rank, now, told_at=told_at, due_at=due_at
        )
        async with books.database.transaction() as session:
            await record(session, [seen], told_at)
        await gauges(books).read()

    await report(DisputeRank.OPEN, timedelta(days=7), 1)
    assert (shown("disputes_open"), shown("disputes_without_evidence")) == (1, 1)
    assert shown("dispute_deadline_seconds") == pytest.approx(7 * 86_400, abs=5)
    await report(DisputeRank.OPEN, None, 2)
    assert (shown("disputes_open"), shown("disputes_without_evidence")) == (1, 0)
    assert math.isnan(shown("dispute_deadline_seconds"))
    await report(DisputeRank.WON, None, 3)
    assert shown("disputes_open") == 0


async def test_the_oldest_ticket_is_shown_by_its_age(books: Books) -> None:
    drive = a_drive()
    await books.consume(drive, *(a_pledge(drive) for _ in range(40)))
    async with books.database.transaction() as session:
        await session.execute(update(PAYMENTS).values(made_at=books.clock.now() - timedelta(seconds=30)))
    await gauges(books).read()
    assert shown("checkouts_oldest_waiting_seconds") == 30


async def add(books: Books, table: Any, **values: Any) -> None:
    async with books.database.transaction() as session:
        await session.execute(insert(table), [values])


async def test_payouts_are_late_until_they_are_compared_and_different_ones_are_summed(books: Books) -> None:
    now = books.clock.now()
    plain = {"currency": "USD", "status": "paid", "created_at": now, "tries": 0, "payments": None,
             "resume_after": None, "amount": 10_000, "arrival_at": now - timedelta(days=3)}  # fmt: skip
    await add(books, PAYOUTS, id="po_1", difference=None, next_try_at=now, **plain)
    await add(books, PAYOUTS, id="po_2", difference=0, next_try_at=None, **plain)
    await add(books, PAYOUTS, id="po_3", difference=-700, next_try_at=now, **plain)
    await add(books, PAYOUTS, id="po_4", difference=300, next_try_at=now, **plain)
    await add(books, PAYOUTS, id="po_manual", difference=None, next_try_at=None, **plain)
    await gauges(books).read()
    assert shown("payouts_not_compared") == 1
    assert shown("payouts_oldest_not_compared_seconds") == pytest.approx(3 * 86_400, abs=5)
    assert shown("payouts_difference_minor_units", currency="USD") == 1_000


async def test_only_open_pools_of_live_drives_have_something_left(books: Books) -> None:
    live, other = a_drive(), a_drive(state="paused", slug="other")
    await books.consume(live, other)
    now = books.clock.now()

    async def pool(name: str, drive: DriveId, used: int, **times: Any) -> None:
        plain = {"starts_at": now, "ends_at": None, "ended_at": None} | times
        await add(
            books, POOLS, id=name, drive_id=drive, version=1, sponsor="Acme", currency="USD", cap=1_000,
            used=used, ratio=1, per_gift_cap=None, creator_id=None, made_by="key", ended_by=None, made_at=now,
            **plain,
        )  # fmt: skip

    await pool("mch_1", live.drive_id, 950)
    await pool("mch_2", live.drive_id, 100)
    await pool("mch_empty", live.drive_id, 1_000)
    await pool("mch_ended", live.drive_id, 999, ended_at=now)
    await pool("mch_over", live.drive_id, 999, ends_at=now)
    await pool("mch_later", live.drive_id, 999, starts_at=now + timedelta(days=1))
    await pool("mch_other", other.drive_id, 999)
    await gauges(books).read()
    assert shown("matching_left_minor_units", currency="USD") == 950
    assert shown("matching_least_left_ratio") == 0.05


async def test_balances_of_the_ledger_are_shown_by_account(books: Books) -> None:
    await books.paid_pledge(2_600, pledged=2_500)
    assert await LedgerAudit(books.database).audit() == {"USD": 0}
    name = "ledger_balance_minor_units"
    assert shown(name, account="processor_clearing", currency="USD") == 2_600
    assert shown(name, account="held", currency="USD") == -2_600
