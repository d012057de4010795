"""Webhooks in any order, repeated and in any batches give the same rows, ledger and last announcement."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from services.payments.recording.ledger import CLEARING
from services.payments.tables import FACTS
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe.enumerations import INVENTED
from tests.payments.stripe_events import (
    dispute,
    intent_succeeded,
    metadata,
    refund,
    session_completed,
    session_expired,
)

_numbers = itertools.count(1)
MOST = 36
"""More webhooks than any generated payment has."""


REFUNDS = [
    ("pending",), ("pending", "succeeded"), ("succeeded",), ("succeeded", "failed"), (None,),
    (None, "succeeded"), (None, "canceled"), ("requires_action", INVENTED, "failed"),
]  # fmt: skip
"""Possible status sequences of a refund."""

Told = tuple[str, tuple[int, ...] | None]
DISPUTES: list[tuple[Told, ...]] = [
    (),
    (("needs_response", None),),
    (("needs_response", None), ("lost", None)),
    (("needs_response", None), ("won", None)),
    (("needs_response", ()), ("needs_response", (-500,)), ("won", (-500,)), ("won", (-500, 500))),
    (("needs_response", (-500,)), ("lost", (-500, 200))),
    (("needs_response", (-500,)), ("won", (-500, 500)), ("lost", (-500, 500, -500))),
    (("won", None), ("lost", None)),
    (("lost", None), ("won", None)),
    (("warning_needs_response", ()), ("warning_closed", ())),
    (("warning_under_review", ()), ("needs_response", (-500,)), ("under_review", (-500,))),
    (("prevented", ()),),
    (("prevented", (-500,)),),
    (("charge_refunded", None),),
    ((INVENTED, None), ("won", None)),
    (("won", None), (INVENTED, None)),
]
"""Possible status sequences of a dispute, with the amounts of its balance transactions."""


@st.composite
def dispute_lives(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The events of a dispute, in one second or in several."""
    told = draw(st.sampled_from(DISPUTES))
    step = draw(st.sampled_from([0, 1]))
    case: dict[str, Any] = {
        "currency": draw(st.sampled_from(["usd", "usd", "eur", "zzz"])),
        "settled_in": draw(st.sampled_from(["usd", "usd", "gbp"])),
        "case_type": draw(st.sampled_from([None, "block", "resolution", "chargeback"])),
    }
    return [
        {"status": status, "moves": moves, "at": 1_700_000_000 + step * place} | case
        for place, (status, moves) in enumerate(told)
    ]


@st.composite
def lives(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], list[int]]:
    """A payment's history, the order in which its webhooks arrive (some twice), and the batches."""
    life = {
        "captured": draw(st.booleans()),
        "expired": draw(st.booleans()),
        "refunds": draw(st.lists(st.sampled_from(REFUNDS), max_size=3)),
        "disputes": draw(st.lists(dispute_lives(), max_size=2)),
        "pledge_at": draw(st.integers(0, 12)),
        "opened": draw(st.booleans()),
    }
    if life["opened"]:
        life["pledge_at"] = 0
    order = draw(st.permutations(range(MOST)))
    cuts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    return life, order, cuts


def webhooks_of(life: dict[str, Any], n: int, ours: dict[str, str]) -> list[dict[str, Any]]:
    intent, session = f"pi_{n}", f"cs_{n}"
    found: list[dict[str, Any]] = []
    if life["captured"]:
        found.append(intent_succeeded(intent, 1_000, ours))
        found.append(session_completed(session, intent, 1_000, ours))
    if life["expired"]:
        found.append(session_expired(session, ours))
    for place, states in enumerate(life["refunds"]):
        for state in states:
            found.append(refund("updated", f"re_{n}_{place}", intent, 100, state))
    for place, events in enumerate(life["disputes"]):
        for told in events:
            found.append(dispute("updated", f"dp_{n}_{place}", intent, 500, **told))
    return found + found[: len(found) // 2]  # some arrive twice, under the same event id


async def outcome(books: Books, life: dict[str, Any], order: list[int], cuts: list[int]) -> Any:
    """Apply a history in this order; returns everything that must not depend on the order."""
    drive = a_drive()
    pledge = a_pledge(drive, 1_000)
    await books.consume(drive)
    n = next(_numbers)
    if life["opened"]:
        await books.consume(pledge)
        payment = await books.opened(pledge.pledge_id, f"cs_{n}")
        ours = metadata(payment, pledge.pledge_id, drive.drive_id)
    else:
        ours = metadata(None, pledge.pledge_id, drive.drive_id)
    webhooks = webhooks_of(life, n, ours)
    ordered = [webhooks[place] for place in order if place < len(webhooks)]
    batches, start = [], 0
    for size in itertools.chain(cuts, itertools.repeat(MOST)):
        if start >= len(ordered):
            break
        batches.append(ordered[start : start + size])
        start += size
    for place, batch in enumerate([*batches, *([[]] * (13 - len(batches)))]):
        if place == life["pledge_at"]:
            await books.consume(pledge)
        if batch:
            await books.apply(batch)
    (row,) = await books.payments(pledge.pledge_id)
    balances = await books.balances(row.id)
    assert balances.get(CLEARING, 0) == row.captured - row.refunded - row.disputed
    assert balances.get("refunds", 0) == row.refunded
    assert balances.get("disputes", 0) == row.disputed
    published = await books.published(pledge.pledge_id)
    told = {"status", "held", "captured", "refunded", "disputed", "source"}
    last = published[-1].model_dump(include=told) if published else None
    assert [event.version for event in published] == list(range(1, row.version + 1))
    if published:
        assert published[-1].creator_id == pledge.creator_id
        assert (published[-1].status, published[-1].captured.minor_units) == (row.status, row.captured)
    return (
        (row.status, row.held, row.captured, row.refunded, row.disputed, row.amount, row.pledge_version),
        balances,
        await facts_of(books, n),
        last,
    )


async def facts_of(books: Books, n: int) -> list[Any]:
    """The stored facts of a history, without their times and posting counts."""
    left_out = ("payment_id", "pledge_id", "drive_id", "postings", "heard_at", "at")
    columns = [column for column in FACTS.c if column.name not in left_out]
    mine = select(*columns).where(FACTS.c.intent == f"pi_{n}").order_by(FACTS.c.id)
    async with books.database.reading() as session:
        rows = await session.execute(mine)
        return [dict(row._mapping) | {"id": row.id.replace(f"_{n}", ""), "intent": None} for row in rows]


@settings(max_examples=40, deadline=None)
@given(lives())
def test_any_order_repetition_and_batching_of_webhooks_gives_the_same_result(
    case: tuple[dict[str, Any], list[int], list[int]],
) -> None:
    asyncio.run(ends_the_same(*case))


@pytest.fixture
def a_postgres() -> str:
    """A fixture of its own, so that a missing PostgreSQL skips the test before its first example."""
    return postgres_server()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives())
def test_any_order_repetition_and_batching_of_webhooks_gives_the_same_result_on_postgresql(
    a_postgres: str, case: tuple[dict[str, Any], list[int], list[int]]
) -> None:
    async def on_postgresql() -> None:
        async with fresh_postgres() as url:
            await ends_the_same(*case, url)

    asyncio.run(on_postgresql())


async def ends_the_same(life: dict[str, Any], order: list[int], cuts: list[int], url: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder), url) as books:
            straight = await outcome(books, life | {"pledge_at": 0}, list(range(MOST)), [MOST])
            assert await outcome(books, life, order, cuts) == straight
            assert not any((await books.drift()).values())
