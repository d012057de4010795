"""The audit compares each posting's rate with its payment's, and computes reporting amounts anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from backbone.exchange_rates import converted
from backbone.money import Money, digits
from services.leaderboard import tables as board
from services.payments.proof.figures import Amounts, OwnFigures, Posted
from services.payments.tables import PAYMENTS, POSTINGS
from tests.payments.harness import a_drive, a_pledge
from tests.payments.proof.audited import Audited, audited, of_payment
from tests.payments.rates.setting import set_rate
from tests.payments.stripe_events import intent_succeeded, metadata, refund


@pytest.fixture(params=["sqlite", "postgresql"])
async def system(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Audited]:
    async with audited(tmp_path, request.param) as found:
        yield found


async def kuwaiti_gift(system: Audited) -> str:
    """10.000 KWD at 3.2581, of which 3.330 are refunded: 21.73 USD. Counted; returns the payment."""
    await set_rate(system.books, "KWD", "3.2581")
    drive = a_drive(drive_id=system.drive.drive_id, partner="default", version=2, currencies=["KWD"])
    pledge = a_pledge(drive, amount=Money(10_000, "KWD"))
    await system.books.consume(drive, pledge)
    await system.count(drive)  # the pledge is not needed: its payment names the drive
    about = metadata(None, pledge.pledge_id, drive.drive_id)
    await system.books.apply([intent_succeeded("pi_1", 10_000, about, currency="kwd")])
    await system.books.apply([refund("created", "re_1", "pi_1", 3_330, "succeeded", currency="kwd")])
    await system.deliver()
    return (await system.books.payments(pledge.pledge_id))[0].id


async def tamper(system: Audited, cause: str, **values: Any) -> None:
    """Change a posting, which the triggers forbid: they are dropped before."""
    is_sqlite = system.books.database.is_sqlite
    await system.change(
        "payments",
        text("DROP TRIGGER postings_no_update" if is_sqlite else "DROP TRIGGER postings_kept ON postings"),
    )
    await system.change("payments", update(POSTINGS).where(POSTINGS.c.cause == cause).values(**values))


async def test_gift_in_another_currency_has_no_difference(system: Audited) -> None:
    await system.pay("pi_own")
    await kuwaiti_gift(system)
    state = await system.prove()
    assert (state.found, state.differences, state.settled) == (0, [], True)


@pytest.mark.parametrize("other", ["3.3", None])
async def test_posting_at_another_rate_than_its_payments_is_found(system: Audited, other: str | None) -> None:
    payment = await kuwaiti_gift(system)
    await tamper(system, "pi_1#1", rate=other)
    state = await system.prove()
    by_ledger = 3_300 - 1_085 if other else -1_085
    assert of_payment(state, payment) == [
        ("exchange rate", {"payments": "3.2581", "ledger": other}),
        ("reporting amount", {"payments": 2_173, "facts": 2_173, "ledger": by_ledger}),
    ]
    assert state.of(None).difference == abs(2_173 - by_ledger)


async def test_other_rate_that_changes_no_amount_is_found(system: Audited) -> None:
    payment = await kuwaiti_gift(system)
    await tamper(system, "re_1#1", rate="3.2582")
    state = await system.prove()
    assert of_payment(state, payment) == [("exchange rate", {"payments": "3.2581", "ledger": "3.2582"})]


async def test_changed_rate_of_a_payment_is_found(system: Audited) -> None:
    payment = await kuwaiti_gift(system)
    await system.change("payments", update(PAYMENTS).where(PAYMENTS.c.id == payment).values(rate="4"))
    state = await system.prove()
    assert of_payment(state, payment) == [
        ("exchange rate", {"payments": "4", "ledger": "3.2581"}),
        ("reporting amount", {"payments": 2_668, "facts": 2_668, "ledger": 2_173}),
        ("reporting amount", {"payments": 2_668, "leaderboard": 2_173}),
    ]


async def test_rate_on_a_posting_in_the_drives_currency_is_found(system: Audited) -> None:
    payment = await system.pay("pi_1", 1_000)
    await system.deliver()
    await tamper(system, "pi_1#1", rate="2")
    assert of_payment(await system.prove(), payment)[0] == (
        "exchange rate",
        {"payments": None, "ledger": "2"},
    )


async def test_changed_reporting_amount_at_leaderboard_is_found(system: Audited) -> None:
    payment = await kuwaiti_gift(system)
    of_gift = board.payments.c.payment_id == payment
    await system.change("leaderboard", update(board.payments).where(of_gift).values(captured=3_259))
    found = of_payment(await system.prove(), payment)
    assert ("reporting amount", {"payments": 2_173, "leaderboard": 2_174}) in found


async def test_posting_in_another_drive_is_found(system: Audited) -> None:
    payment = await kuwaiti_gift(system)
    await tamper(system, "pi_1#1", drive_id="drv_elsewhere")
    found = of_payment(await system.prove(), payment)
    assert ("drive of postings", {"payments": system.drive.drive_id, "ledger": "drv_elsewhere"}) in found


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["KWD", "JPY", "EUR"]),
    st.sampled_from(["USD", "JPY", "KWD"]),
    st.decimals("0.0001", "9999", places=6).map(lambda one: format(one, "f").rstrip("0").rstrip(".")),
)
def test_the_audits_conversion_equals_that_of_payments(
    units: int, source: str, target: str, rate: str
) -> None:
    """Two computations: integers there, fractions here."""
    figures = OwnFigures(
        "pay_1",
        "drv_1",
        1,
        source,
        False,
        0,
        Amounts(units),
        Amounts(units),
        Posted(captured=units),
        False,
        rate,
        target,
    )
    assert figures.reporting_net == figures.reporting_by_ledger == converted(units, source, target, rate)
    exact = Fraction(units) * Fraction(rate) * Fraction(10) ** (digits(target) - digits(source))
    assert abs(exact - figures.reporting_net) <= Fraction(1, 2)
