"""Log rows of gifts in another currency than their drive's: what did not change has no row."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone.contracts import PaymentChanged
from backbone.database.database import Database
from backbone.exchange_rates import reported
from backbone.money import Money
from tests.leaderboard.builders import drive, drive_row, empty, handle_events, log_rows, payment

RATE = "3.2581"
SIGNS = {
    "donation.counted": 1, "donation.corrected": 1, "donation.refunded": -1, "donation.refund_failed": 1,
    "donation.disputed": -1, "donation.dispute_won": 1,
}  # fmt: skip
EFFECT_OF = {
    "captured": {"donation.counted", "donation.corrected"},
    "refunded": {"donation.refunded", "donation.refund_failed"},
    "disputed": {"donation.disputed", "donation.dispute_won"},
}


def kuwaiti(captured: int, refunded: int, disputed: int, version: int = 1) -> PaymentChanged:
    """A state of a payment of so many fils, with what it is worth in USD."""
    sums = reported(captured, refunded, disputed, "KWD", "USD", RATE)
    worth = {f"reporting_{name}": Money(units, "USD") for name, units in sums._asdict().items()}
    return payment("pay_1", captured, refunded, disputed, version, currency="KWD", rate=RATE, **worth)


def cents(amount: dict[str, str]) -> int:
    return int(Decimal(amount["value"]) * 100)


async def logged(database: Database) -> list[tuple[str, int]]:
    rows = [row for row in await log_rows(database) if row["payment"]]
    return [(row["type"], SIGNS[row["type"]] * cents(row["reporting_amount"])) for row in rows]


async def test_refund_moves_no_disputed_cent(database: Database) -> None:
    """The dispute of 0.005 KWD alone is worth 0.01; after the refund the cumulative amounts say 0.02."""
    await empty(database)
    await handle_events(database, drive(), kuwaiti(1_005, 0, 5))
    await handle_events(database, kuwaiti(1_005, 500, 5, 2))
    assert [type_ for type_, _ in await logged(database)] == [
        "donation.counted", "donation.disputed", "donation.refunded"
    ]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(100, 2_000), st.integers(0, 1_000), st.integers(0, 1_000)), max_size=6))
async def test_rows_are_of_what_changed_and_add_up_to_what_is_raised(
    database: Database, states: list[tuple[int, int, int]]
) -> None:
    await empty(database)
    await handle_events(database, drive())
    before, seen = (0, 0, 0), 0
    for version, state in enumerate(states, 1):
        await handle_events(database, kuwaiti(*state, version))
        rows = (await logged(database))[seen:]
        seen += len(rows)
        changed: set[Any] = set()
        for kind, was, now in zip(EFFECT_OF, before, state, strict=True):
            changed |= EFFECT_OF[kind] if was != now else set()
        if state[0] < before[0]:
            changed.add("donation.refunded")
        assert {type_ for type_, _ in rows} <= changed
        before = state
    row = await drive_row(database)
    raised = reported(*before, "KWD", "USD", RATE).net
    assert sum(moved for _, moved in await logged(database)) == raised
    assert row.captured - row.refunded - row.disputed == raised
