"""Gifts in other currencies than their drive's: the frozen rate, and sums that never drift.

Checked after each step: what the announced reporting amounts add up to is the rounded net at the frozen rate,
and the ledger alone gives the same.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone.contracts import DriveChanged, PaymentChanged
from backbone.exchange_rates import converted
from backbone.money import Money
from backbone.stripe_amounts import step, to_stripe
from services.payments.disbursements.balances import net_of
from services.payments.processor import Movement
from services.payments.rates.reporting import read_reported
from services.payments.settlement.record import record_movements
from services.payments.treasury.balances import read_drive_ledger, statements
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.rates.setting import set_rate
from tests.payments.stripe_events import intent_succeeded, metadata, refund

OTHERS = {"KWD": "3.2581", "AED": "0.27229408", "SAR": "0.2666", "EUR": "1.0837", "JPY": "0.0064531"}


async def opened(books: Books, *currencies: str, **other: Any) -> DriveChanged:
    drive = a_drive(currencies=list(currencies), **other)
    await books.consume(drive)
    return drive


def captured(intent: str, units: int, currency: str, about: dict[str, str]) -> dict[str, Any]:
    return intent_succeeded(intent, to_stripe(units, currency), about, currency=currency.lower())


def refunded(
    refund_id: str, intent: str, units: int, currency: str, *, fails: bool = False
) -> dict[str, Any]:
    kind, status = ("failed", "failed") if fails else ("created", "succeeded")
    return refund(kind, refund_id, intent, to_stripe(units, currency), status, currency=currency.lower())


async def give(books: Books, drive: DriveChanged, currency: str, units: int, intent: str = "pi_1") -> str:
    pledge = a_pledge(drive, amount=Money(units, currency))
    await books.consume(pledge)
    await books.apply([captured(intent, units, currency, metadata(None, pledge.pledge_id, drive.drive_id))])
    return pledge.pledge_id


async def check(books: Books, drive: DriveChanged, events: list[PaymentChanged]) -> int:
    """What counts of the drive's gifts, by events, ledger, statement and disbursements."""
    newest = {event.payment_id: event for event in events}
    worth = 0
    for event in newest.values():
        if event.held or event.rate is None:
            continue
        net = event.captured.minor_units - event.refunded.minor_units - event.disputed.minor_units
        sums = (event.reporting_captured, event.reporting_refunded, event.reporting_disputed)
        assert None not in sums
        units = [one.minor_units for one in sums if one is not None]
        assert units[0] - units[1] - units[2] == converted(
            net, event.captured.currency, drive.currency, event.rate
        )
        worth += units[0] - units[1] - units[2]

    def read(transaction: Any) -> tuple[int, int]:
        found = read_drive_ledger(transaction, drive.drive_id)
        return (
            read_reported(transaction, drive.drive_id, drive.currency).whole.net,
            statements(found, drive.currency)[0].raised,
        )

    assert await books.database.read_whole(read) == (worth, worth)
    async with books.database.reading() as session:
        assert (await net_of(session, drive.drive_id, drive.currency)).whole == worth
    return worth


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_the_rate_at_capture_is_frozen(books: Books) -> None:
    await set_rate(books, "KWD", "3.2581")
    drive = await opened(books, "KWD")
    pledge = await give(books, drive, "KWD", 10_000)
    await set_rate(books, "KWD", "6")
    await books.apply([refunded("re_1", "pi_1", 3_330, "KWD")])
    first, last = (await books.published(pledge))[0], (await books.published(pledge))[-1]
    assert (first.held, first.rate, first.reporting_captured) == (False, "3.2581", Money(3_258, "USD"))
    assert (last.rate, last.reporting_captured) == ("3.2581", Money(3_258, "USD"))
    assert await check(books, drive, [last]) == converted(6_670, "KWD", "USD", "3.2581")


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_money_without_a_fresh_rate_or_in_a_currency_not_taken_is_held(books: Books) -> None:
    await set_rate(books, "KWD", "3.2581")
    books.clock.move(timedelta(days=8).total_seconds())
    drive = await opened(books, "KWD")
    stale = await give(books, drive, "KWD", 10_000)
    other = await give(books, drive, "EUR", 1_000, "pi_2")
    assert [row.held_reason for row in await books.payments(stale)] == ["no_exchange_rate"]
    assert [row.held_reason for row in await books.payments(other)] == ["other_currency"]
    assert await check(books, drive, await books.published(stale) + await books.published(other)) == 0


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("currency", "fee", "worth"), [("KWD", 301, 99), ("USD", 120, 120), ("EUR", 90, 0)])
async def test_fees_of_gifts_in_other_currencies_are_not_owed(
    books: Books, currency: str, fee: int, worth: int
) -> None:
    """A fee in the gift's currency counts at its rate, rounded up; in the drive's own, as it is."""
    await set_rate(books, "KWD", "3.2581")
    drive = await opened(books, "KWD")
    await give(books, drive, "KWD", 10_000)
    at = books.clock.now()
    movement = Movement("txn_1", "charge", "ch_1", "pi_1", 10_000, fee, currency, None, at, at)
    async with books.database.transaction() as session:
        await record_movements(session, [movement], at)
    async with books.database.reading() as session:
        assert (await net_of(session, drive.drive_id, "USD")).whole == 3_258 - worth
    found = await books.database.read_whole(
        lambda transaction: read_drive_ledger(transaction, drive.drive_id)
    )
    assert (found.pending.whole, found.pending.zakat) == (worth, 0)


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_gift_that_had_no_rate_is_counted_by_a_person_only(books: Books) -> None:
    drive = await opened(books, "KWD")
    pledge = await give(books, drive, "KWD", 10_000)
    await set_rate(books, "KWD", "3.2581")
    await books.apply([refunded("re_1", "pi_1", 3_330, "KWD")])
    assert [(row.held_reason, row.rate) for row in await books.payments(pledge)] == [
        ("no_exchange_rate", None)
    ]
    assert await check(books, drive, await books.published(pledge)) == 0


async def _history(gifts: list[tuple[str, int]], refunds: list[tuple[int, int, bool, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder)) as books:
            for currency, rate in OTHERS.items():
                await set_rate(books, currency, rate)
            drive = await opened(books, *OTHERS)
            pledges = [
                await give(books, drive, currency, units * step(currency), f"pi_{number}")
                for number, (currency, units) in enumerate(gifts)
            ]
            left = [units * step(currency) for currency, units in gifts]
            for number, (which, part, fails, change) in enumerate(refunds):
                place = which % len(gifts)
                currency = gifts[place][0]
                units = min(left[place], part * step(currency))
                if not units:
                    continue
                if change:
                    await set_rate(books, currency, str(change))
                about = (f"re_{number}", f"pi_{place}", units, currency)
                await books.apply([refunded(*about)])
                if fails:
                    await books.apply([refunded(*about, fails=True)])
                else:
                    left[place] -= units
                await check(books, drive, [one for p in pledges for one in await books.published(p)])
            for place, (currency, _) in enumerate(gifts):
                if left[place]:
                    await books.apply([refunded(f"re_all_{place}", f"pi_{place}", left[place], currency)])
            events = [one for p in pledges for one in await books.published(p)]
            assert await check(books, drive, events) == 0


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OTHERS)), st.integers(500, 99_999)), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 40_000), st.booleans(), st.integers(0, 2)), max_size=8
    ),
)
def test_any_history_of_refunds_leaves_the_rounded_nets_and_a_full_one_nothing(
    gifts: list[tuple[str, int]], refunds: list[tuple[int, int, bool, int]]
) -> None:
    asyncio.run(_history(gifts, refunds))
