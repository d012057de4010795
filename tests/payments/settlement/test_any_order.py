"""Balance transactions and captures in any order, repeated, give the same ledger."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.payments.processor import Movement
from services.payments.recording import ledger
from services.payments.settlement.record import place_waiting, record_movements
from tests.payments.books import Books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.settlement.ledger_rows import fee_row, payout_row, settled
from tests.payments.settlement.moving_processor import moved
from tests.payments.stripe_events import intent_succeeded, metadata

_numbers = itertools.count(1)

Kind = tuple[str, int, int]
LATER: list[Kind] = [
    ("refund", -500, 0),
    ("refund_failure", 500, 0),
    ("adjustment", -2_500, 1_500),
    ("adjustment", 2_500, -1_500),
    ("refund", -100, -3),
]
"""Type, amount and fee of what may follow a charge."""


async def record_each(books: Books, movements: list[Movement]) -> None:
    async with books.database.transaction() as session:
        await record_movements(session, movements, books.clock.now())


async def place(books: Books) -> None:
    """Look at all waiting transactions, however far their next try is."""
    books.clock.move(2 * 86_400)
    async with books.database.transaction() as session:
        await place_waiting(session, books.clock.now())


async def check_order(books: Books, lives: list[list[Kind]], draw_order: Any) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in lives]
    await books.consume(drive, *pledges)
    before, balance = await settled(books), await books.database.read_whole(ledger.processor_balance)
    steps: list[Any] = []
    intents = [f"pi_{next(_numbers)}" for _ in lives]
    at = books.clock.now()
    for pledge, intent, life in zip(pledges, intents, lives, strict=True):
        ours = metadata(None, pledge.pledge_id, drive.drive_id)
        steps.append(intent_succeeded(intent, 2_500, ours))
        charge: Kind = ("charge", 2_500, 103)
        steps += [
            moved(f"txn_{intent}_{n}", *kind_and(intent, each), at=at)
            for n, each in enumerate([charge, *life])
        ]
    number = next(_numbers)
    steps.append(moved(f"txn_po_{number}", "payout", None, -4_000, source=f"po_{number}", at=at))
    steps.append(moved(f"txn_po_{number}f", "payout_failure", None, 4_000, source=f"po_{number}", at=at))
    steps.append(moved(f"txn_radar_{number}", "stripe_fee", None, -25, at=at))
    for step in draw_order(steps):
        if isinstance(step, Movement):
            await record_each(books, [step, step])
        else:
            await books.apply([step])
    await place(books)
    owners = {
        intent: (await books.payments(pledge.pledge_id))[0].id
        for pledge, intent in zip(pledges, intents, strict=True)
    }
    expected = {
        fee_row(step.id, step.fee, owners[step.intent or ""])
        for step in steps
        if isinstance(step, Movement) and step.fee
    }
    expected |= {payout_row(f"txn_po_{number}", 4_000), payout_row(f"txn_po_{number}f", -4_000)}
    expected.add(fee_row(f"txn_radar_{number}", 25, None))
    assert await settled(books) - before == expected
    after = await books.database.read_whole(ledger.processor_balance)
    assert after["USD"] - balance.get("USD", 0) == 2_500 * len(lives)
    assert not any((await books.drift()).values())


def kind_and(intent: str, kind: Kind) -> tuple[str, str, int, int]:
    name, amount, fee = kind
    return name, intent, amount, fee


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), lives=st.lists(st.lists(st.sampled_from(LATER), max_size=4), min_size=1, max_size=3))
async def test_any_order_and_repetition_gives_the_same_ledger(
    books: Books, data: st.DataObject, lives: list[list[Kind]]
) -> None:
    def order(steps: list[Any]) -> list[Any]:
        repeated = data.draw(st.lists(st.sampled_from(range(len(steps))), max_size=6))
        shuffled: list[Any] = data.draw(st.permutations([*steps, *(steps[n] for n in repeated)]))
        return shuffled

    await check_order(books, lives, order)
