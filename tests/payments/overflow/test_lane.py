"""The lane: which tickets are given a link, and that no other donor's place gets worse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import insert, select, update

from backbone.contracts import PledgeMade
from services.payments.admission.store import pause
from services.payments.admission.tables import ADMISSION
from services.payments.checkout.attempts import AttemptOutcome, SentAttempt, store_attempts
from services.payments.checkout.expiry import CheckoutExpirer
from services.payments.overflow.lane import OverflowLane
from services.payments.overflow.references import pledge_of
from services.payments.overflow.tables import LINKS
from services.payments.queries import read_checkouts
from services.payments.reconciliation.hanging import HangingCheckouts
from services.payments.screening.domain import ALL_DRIVES
from services.payments.screening.tables import BREAKERS
from services.payments.stripe.payment_links import link_address
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import PAYMENTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_pledge
from tests.payments.overflow.linked import PRICE, SECRET, Linked, a_link
from tests.rounds import run_round

AFTER_S = 60.0
LIFETIME_S = 3_600.0
RATE = 1_000
"""One checkout a second, in the unit of the queue's estimates."""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Stripe(FakeProcessor):
    def link_address(self, url: str, reference: str, locale: str | None) -> str:
        return link_address(url, reference, locale)


@pytest.fixture
async def linked(books: Books) -> Linked:
    linked = await a_link(books)
    async with books.database.transaction() as session:
        await session.execute(update(ADMISSION).values(rate=RATE))
    return linked


def a_lane(linked: Linked) -> OverflowLane:
    books = linked.books
    return OverflowLane(
        books.database, Stripe(), books.clock, after_s=AFTER_S, lifetime_s=LIFETIME_S  # type: ignore[arg-type]
    )  # fmt: skip


async def give(linked: Linked) -> None:
    lane = a_lane(linked)
    while await lane.step():
        pass


async def queued(linked: Linked, number: int, **other: Any) -> list[PledgeMade]:
    pledges = [a_pledge(linked.drive, **{"units": PRICE, **other}) for _ in range(number)]
    await linked.books.consume(*pledges)
    return pledges


async def shown(linked: Linked, pledge: PledgeMade) -> dict[str, Any]:
    """The pledge's checkout and queue, as donors are told."""
    async with linked.books.database.reading() as session:
        found = await read_checkouts(session, [pledge.pledge_id], "", linked.books.clock.now())
    return dict(found[pledge.pledge_id])


async def test_the_ticket_whose_estimate_exceeds_the_limit_gets_a_link(linked: Linked) -> None:
    *_, last_short, first_long = await queued(linked, 61, locale="ar")
    assert (await shown(linked, first_long))["queue"] == {"position": 61, "eta_seconds": 61}
    await give(linked)
    assert (await shown(linked, last_short))["queue"] == {"position": 60, "eta_seconds": 60}
    found = await shown(linked, first_long)
    assert (found["status"], found["queue"], found["version"]) == (None, None, 0)
    address = urlsplit(found["checkout"]["url"])
    query = parse_qs(address.query)
    assert address.geturl().startswith("https://donate.example/link?")
    assert pledge_of(query["client_reference_id"][0], SECRET) == first_long.pledge_id
    assert query["locale"] == ["ar"]
    assert found["checkout"]["client_secret"] is None
    assert found["checkout"]["expires_at"] is not None


async def test_a_short_queue_is_left_as_it_is(linked: Linked) -> None:
    pledges = await queued(linked, 60)
    before = [await shown(linked, each) for each in pledges]
    await give(linked)
    assert [await shown(linked, each) for each in pledges] == before
    async with linked.books.database.reading() as session:
        assert (await session.execute(select(LINKS.c.used_until))).scalar_one() is None


@pytest.mark.parametrize(
    "other", [{"units": PRICE + 1}, {"checkout_mode": "embedded"}], ids=["other amount", "embedded"]
)
async def test_a_pledge_without_a_link_keeps_its_place(linked: Linked, other: dict[str, Any]) -> None:
    await queued(linked, 70)
    (waiting,) = await queued(linked, 1, **other)
    before = await shown(linked, waiting)
    await give(linked)
    assert await shown(linked, waiting) == before


@pytest.mark.parametrize("state", ["preparing", "closing", "closed", "reopening", "failed"])
async def test_only_an_active_link_is_given(linked: Linked, state: str) -> None:
    pledges = await queued(linked, 70)
    async with linked.books.database.transaction() as session:
        await session.execute(update(LINKS).values(state=state))
    await give(linked)
    assert (await shown(linked, pledges[-1]))["checkout"] is None


async def test_nothing_is_given_while_checkouts_are_paused(linked: Linked) -> None:
    pledges = await queued(linked, 70)
    async with linked.books.database.transaction() as session:
        await pause(session, "key_1", None, linked.books.clock.now())
    await give(linked)
    assert (await shown(linked, pledges[-1]))["checkout"] is None


@pytest.mark.parametrize("scope", ["all drives", "the drive", "another drive"])
async def test_while_cards_are_tested_with_a_drive_its_links_are_not_given(
    linked: Linked, scope: str
) -> None:
    pledges = await queued(linked, 70)
    scopes = {"all drives": ALL_DRIVES, "the drive": linked.drive.drive_id, "another drive": "drv_other"}
    async with linked.books.database.transaction() as session:
        opened = {"scope": scopes[scope], "opened_at": linked.books.clock.now()}
        await session.execute(insert(BREAKERS).values(**opened))
    await give(linked)
    given = (await shown(linked, pledges[-1]))["checkout"] is not None
    assert given == (scope == "another drive")


async def test_no_position_or_estimate_grows(linked: Linked) -> None:
    pledges: list[PledgeMade] = []
    told: dict[str, tuple[int, int]] = {}
    lane = a_lane(linked)
    for turn in range(6):
        pledges += await queued(linked, 30, units=PRICE if turn % 2 else PRICE + 100)
        while await lane.step():
            pass
        for each in pledges:
            queue = (await shown(linked, each))["queue"]
            if queue is not None:
                now = (queue["position"], queue["eta_seconds"])
                before = told.get(each.pledge_id, now)
                assert now[0] <= before[0]
                assert now[1] <= before[1]
                told[each.pledge_id] = now
    still_long = [each for each in told.values() if each[1] > AFTER_S]
    assert still_long  # those of the other amount


async def test_a_ticket_is_opened_by_the_lane_or_by_the_worker_never_by_both(linked: Linked) -> None:
    pledges = await queued(linked, 61)
    (row,) = await linked.books.payments(pledges[-1].pledge_id)
    now = linked.books.clock.now()
    await give(linked)
    attempt = AttemptOutcome(SentAttempt(f"{row.id}.1", row.id, 1, {}, now), None)
    async with linked.books.database.transaction() as session:
        assert await store_attempts(session, [attempt], now) == []  # the worker had read it before
    assert (await shown(linked, pledges[-1]))["checkout"] is not None


async def test_a_link_that_nobody_paid_lapses_the_pledge_at_the_end_of_its_lifetime(linked: Linked) -> None:
    books = linked.books
    pledge = (await queued(linked, 61))[-1]
    await give(linked)
    worker = HangingCheckouts(
        books.database, FakeProcessor(), RateLimiter(0), books.clock, 10.0  # type: ignore[arg-type]
    )  # fmt: skip
    books.clock.move(LIFETIME_S)
    assert (await shown(linked, pledge))["checkout"] is None
    await run_round(worker)
    assert (await shown(linked, pledge))["status"] is None
    books.clock.move(11)
    await run_round(worker)
    assert (await shown(linked, pledge))["status"] == "lapsed"
    (event,) = await books.published(pledge.pledge_id)
    assert event.status == "lapsed"


async def test_a_cancelled_pledge_leaves_its_link_to_others(linked: Linked) -> None:
    books = linked.books
    pledge = (await queued(linked, 61))[-1]
    await give(linked)
    async with books.database.transaction() as session:
        cancelled = update(PAYMENTS).where(PAYMENTS.c.pledge_id == pledge.pledge_id)
        await session.execute(cancelled.values(cancelled=True))
    expirer = CheckoutExpirer(books.database, FakeProcessor(), RateLimiter(0), books.clock)  # type: ignore[arg-type]
    assert await expirer.run_batch(await expirer.fetch_due()) == []
    (row,) = await books.payments(pledge.pledge_id)
    assert row.checkout == "none"
    await books.apply([linked.session("pi_1", linked.reference(pledge))])
    (payment,) = await linked.captured()
    assert payment.pledge_id == pledge.pledge_id  # money that came all the same counts


async def test_a_links_last_use_never_falls(linked: Linked) -> None:
    await queued(linked, 61)
    await give(linked)
    first = linked.books.clock.now() + timedelta(seconds=LIFETIME_S)
    linked.books.clock.move(-600)
    await queued(linked, 1)
    await give(linked)
    async with linked.books.database.reading() as session:
        assert (await session.execute(select(LINKS.c.used_until))).scalar_one() == first
