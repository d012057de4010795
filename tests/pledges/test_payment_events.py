"""Events of payments determine a pledge's status and the books, in any order and with repetitions."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from backbone import ids
from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import PledgeChanged
from backbone.ids import DriveId, PaymentId, PledgeId
from backbone.money import Money
from tests.pledges.harness import Harness, pledges_harness
from tests.waiting import until

AT = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)
DRIVE = DriveId(ids.new("drv"))
S = PaymentStatus


def change(
    payment: str,
    version: int,
    status: PaymentStatus,
    *,
    pledge: str | None,
    money: tuple[int, int, int] = (0, 0, 0),
) -> PaymentChanged:
    """A payment event; `money` is captured, refunded and disputed, in cents."""
    captured, refunded, disputed = (Money(cents, "USD") for cents in money)
    return PaymentChanged(
        payment_id=PaymentId(payment),
        drive_id=DRIVE,
        pledge_id=None if pledge is None else PledgeId(pledge),
        creator_id=None,
        donor_id=None,
        source=None,
        version=version,
        status=status,
        held=False,
        captured=captured,
        refunded=refunded,
        disputed=disputed,
        captured_at=None,
        changed_at=AT,
    )


async def wait_until_consumed(harness: Harness) -> None:
    """Wait until every event is consumed."""
    await until(lambda: _behind(harness))


async def _behind(harness: Harness) -> bool:
    return bool((await harness.get("/internal/quiet")).json()["behind"] == 0)


async def status_of(harness: Harness, pledge: str) -> str:
    found = await harness.post_internal("/internal/pledges", ids=[pledge])
    return str(found[pledge]["pledge"]["status"])


LIVES = [
    [(S.AWAITED, (0, 0, 0)), (S.CAPTURED, (2500, 0, 0)), (S.PARTLY_REFUNDED, (2500, 1000, 0))],
    [(S.AWAITED, (0, 0, 0)), (S.LAPSED, (0, 0, 0)), (S.CAPTURED, (2500, 0, 0))],
    [(S.CAPTURED, (2500, 0, 0)), (S.DISPUTED, (2500, 0, 2500)), (S.CAPTURED, (2500, 0, 0))],
    [(S.AWAITED, (0, 0, 0)), (S.LAPSED, (0, 0, 0))],
    [(S.CAPTURED, (700, 0, 0))],  # of an unknown pledge
]
STEPS = [(number, version) for number, life in enumerate(LIVES) for version in range(1, len(life) + 1)]


@settings(max_examples=8, deadline=None)
@given(
    st.permutations(STEPS),
    st.lists(st.sampled_from(STEPS), max_size=6),
    st.lists(st.integers(1, 5), min_size=20, max_size=20),
)
def test_payment_events_converge_in_any_order_repetition_and_batching(
    order: list[tuple[int, int]], repeats: list[tuple[int, int]], splits: list[int]
) -> None:
    asyncio.run(_publish_in_order(order + repeats, splits))


async def _publish_in_order(steps: list[tuple[int, int]], splits: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with pledges_harness(Path(folder)) as harness, harness.running_workers("pledges.consumer"):
            await harness.drive()
            pledges: list[str | None] = [(await harness.pledge()).json()["id"] for _ in LIVES[:-1]]
            for size in splits:
                batch, steps = steps[:size], steps[size:]
                await harness.publish(*(_step([*pledges, None], *step) for step in batch))
            assert not steps
            await wait_until_consumed(harness)
            statuses = [await status_of(harness, pledge) for pledge in pledges if pledge]
            assert statuses == ["partly_refunded", "paid", "paid", "lapsed"]
            assert (await harness.get("/internal/books")).json() == {"USD": "72.00"}


def _step(pledges: list[str | None], number: int, version: int) -> PaymentChanged:
    status, money = LIVES[number][version - 1]
    return change(f"pay_{number}", version, status, pledge=pledges[number], money=money)


async def test_changed_status_is_announced_once_with_a_higher_version(harness: Harness) -> None:
    await harness.drive()
    pledge = (await harness.pledge()).json()["id"]
    async with harness.running_workers("pledges.consumer"):
        for version in (1, 2):  # the second changes the payment's amounts, not the pledge's status
            await harness.publish(change("pay_1", version, S.CAPTURED, pledge=pledge, money=(2500, 0, 0)))
        await wait_until_consumed(harness)
    changed = [event for event in await harness.announced() if isinstance(event, PledgeChanged)]
    assert [(str(event.status), event.version) for event in changed] == [("paid", 2)]


async def test_refund_of_a_second_capture_leaves_the_pledge_paid(harness: Harness) -> None:
    await harness.drive()
    pledge = (await harness.pledge()).json()["id"]
    async with harness.running_workers("pledges.consumer"):
        await harness.publish(
            change("pay_1", 1, S.CAPTURED, pledge=pledge, money=(2500, 0, 0)),
            change("pay_2", 1, S.CAPTURED, pledge=pledge, money=(2500, 0, 0)),
            change("pay_2", 2, S.REFUNDED, pledge=pledge, money=(2500, 2500, 0)),
        )
        await wait_until_consumed(harness)
    assert await status_of(harness, pledge) == "paid"
    assert (await harness.get("/internal/books")).json() == {"USD": "25.00"}
