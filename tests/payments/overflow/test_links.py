"""Links are stored before they are created, created once, and deactivated once nobody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from backbone.contracts import DriveState
from backbone.http.service_client import InProcessServiceClient
from backbone.money import Money
from services.payments.overflow.links import KEY_LIVES, LinkPreparer
from services.payments.overflow.menu import link_amounts
from services.payments.overflow.tables import LINKS
from services.payments.processor import CreatedLink, LinkRequest, ProcessorError, Refused, TooFast, Unknown
from services.payments.stripe.client import StripeProcessor
from services.payments.stripe.rate_limiter import RateLimiter
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import SECRET, Pledges, a_drive, a_pledge
from tests.rounds import run_round


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Stripe(FakeProcessor):
    """Creates links; `failures` are raised by the next calls, after the call had its effect."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, Mapping[str, Any]] = {}
        self.active: dict[str, bool] = {}
        self.calls = 0
        self.failures: list[ProcessorError] = []
        self.of = StripeProcessor(
            "sk_test_1", base="http://unused.test", timeout_s=1.0, expires_s=3_600,
            donor_url="https://give.test", in_flight=1,
        )  # fmt: skip

    def link_parameters(self, request: LinkRequest) -> dict[str, Any]:
        return self.of.link_parameters(request)

    async def create_link(self, key: str, parameters: Mapping[str, Any]) -> CreatedLink:
        self.calls += 1
        assert self.links.setdefault(key, parameters) == parameters
        self._fail()
        self.active[f"plink_{key}"] = True
        return CreatedLink(f"plink_{key}", f"https://donate.example/{key}")

    async def set_link_active(self, link_id: str, active: bool) -> None:
        self.calls += 1
        self.active[link_id] = active
        self._fail()

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class Kept:
    """A preparer of links on these books."""

    def __init__(self, books: Books, *, prepares: bool = True) -> None:
        self.books, self.stripe, self.pledges = books, Stripe(), Pledges()
        self.preparer = self.another(prepares=prepares)

    def another(self, *, prepares: bool = True) -> LinkPreparer:
        return LinkPreparer(
            self.books.database, self.stripe, InProcessServiceClient(self.pledges.app), SECRET,  # type: ignore[arg-type]
            rate_limiter=RateLimiter(0), clock=self.books.clock, prepares=prepares,
        )  # fmt: skip

    async def drive(self, menu: list[tuple[str, str]] = [], **other: Any) -> str:  # noqa: B006
        drive = a_drive(**other)
        shown = [{"currency": currency, "value": value} for currency, value in menu]
        self.pledges.drives[drive.drive_id] = {
            "id": drive.drive_id, "title": {"ar": "شتاء", "en": "Winter"}, "menu": shown, "test": False,
        }  # fmt: skip
        await self.books.consume(drive)
        return drive.drive_id

    async def rows(self) -> list[Any]:
        async with self.books.database.reading() as session:
            return list((await session.execute(select(LINKS).order_by(LINKS.c.amount))).all())

    async def rounds(self, number: int = 3) -> None:
        for _ in range(number):
            await run_round(self.preparer)


@pytest.fixture
def kept(books: Books) -> Kept:
    return Kept(books)


async def test_an_opened_drive_has_a_link_for_each_usual_amount(kept: Kept) -> None:
    drive = await kept.drive()
    await kept.rounds()
    rows = await kept.rows()
    assert [(row.amount, row.state) for row in rows] == [
        (each * 100, "active") for each in (5, 10, 20, 25, 50)
    ]
    assert kept.stripe.calls == 5
    sent = kept.stripe.links[f"{drive}.USD.2500.1"]
    ours = {"ataa_drive": drive, "ataa_link": f"{drive}.USD.2500"}
    assert sent == {
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": "usd", "unit_amount": 2_500, "product_data": {"name": "Winter"},
                },
            }
        ],
        "submit_type": "donate",
        "metadata": ours,
        "payment_intent_data": {"metadata": ours},
        "after_completion": {
            "type": "redirect", "redirect": {"url": "https://give.test/donate/winter/thanks"},
        },
    }  # fmt: skip


async def test_a_drives_own_menu_is_prepared_in_the_currencies_that_it_takes(kept: Kept) -> None:
    await kept.drive([("USD", "7.00"), ("EUR", "8.00"), ("GBP", "9.00")], currencies=["EUR"])
    await kept.rounds()
    assert [(row.amount, row.currency) for row in await kept.rows()] == [(700, "USD"), (800, "EUR")]


@pytest.mark.parametrize("state", [DriveState.DRAFT, DriveState.PAUSED, DriveState.CLOSED])
async def test_a_drive_that_is_not_live_has_no_links(kept: Kept, state: DriveState) -> None:
    await kept.drive(state=state)
    await kept.rounds()
    assert await kept.rows() == []


async def test_a_link_of_unknown_outcome_is_sent_again_verbatim_under_its_key(kept: Kept) -> None:
    drive = await kept.drive([("USD", "7.00")])
    kept.stripe.failures = [Unknown("no answer"), TooFast("429")]
    for _ in range(4):
        await run_round(kept.preparer)
        kept.books.clock.move(10)
    assert kept.stripe.calls == 3
    assert list(kept.stripe.links) == [f"{drive}.USD.700.1"]
    assert [row.state for row in await kept.rows()] == ["active"]


async def test_an_expired_or_replayed_key_is_replaced(kept: Kept) -> None:
    drive = await kept.drive([("USD", "7.00")])
    kept.stripe.failures = [Unknown("500", replayed=True), Unknown("no answer")]
    await run_round(kept.preparer)
    kept.books.clock.move(KEY_LIVES.total_seconds() - 1)
    await run_round(kept.preparer)
    kept.books.clock.move(600)
    await run_round(kept.preparer)
    assert list(kept.stripe.links) == [f"{drive}.USD.700.{n}" for n in (1, 2, 3)]
    assert [row.state for row in await kept.rows()] == ["active"]


async def test_a_refused_link_is_not_tried_again(kept: Kept) -> None:
    await kept.drive([("USD", "7.00")])
    kept.stripe.failures = [Refused("amount too small")]
    await kept.rounds()
    assert kept.stripe.calls == 1
    assert [(row.state, row.reason) for row in await kept.rows()] == [("failed", "amount too small")]


async def test_a_second_process_creates_no_second_link(kept: Kept) -> None:
    await kept.drive()
    await kept.rounds()
    for _ in range(2):
        await run_round(kept.another())
    assert (len(await kept.rows()), kept.stripe.calls) == (5, 5)


async def test_links_of_a_closed_drive_are_deactivated_after_their_last_checkout_ended(kept: Kept) -> None:
    drive = await kept.drive([("USD", "7.00")])
    await kept.rounds()
    end = kept.books.clock.now() + timedelta(hours=1)
    async with kept.books.database.transaction() as session:
        await session.execute(update(LINKS).values(used_until=end))
    closed = a_drive(drive_id=drive, version=2, state=DriveState.CLOSED)
    await kept.books.consume(closed)
    await kept.rounds()
    assert list(kept.stripe.active.values()) == [True]
    kept.books.clock.move(3_601)
    await kept.rounds()
    assert list(kept.stripe.active.values()) == [False]
    assert [row.state for row in await kept.rows()] == ["closed"]


async def test_links_of_a_resumed_drive_are_activated_again(kept: Kept) -> None:
    drive = await kept.drive([("USD", "7.00")])
    await kept.rounds()
    await kept.books.consume(a_drive(drive_id=drive, version=2, state=DriveState.PAUSED))
    await kept.rounds()
    assert list(kept.stripe.active.values()) == [False]
    await kept.books.consume(a_drive(drive_id=drive, version=3, state=DriveState.LIVE))
    await kept.rounds()
    assert list(kept.stripe.active.values()) == [True]
    assert [row.state for row in await kept.rows()] == ["active"]


async def test_where_the_lane_is_switched_off_links_are_deactivated(kept: Kept) -> None:
    await kept.drive([("USD", "7.00")])
    await kept.rounds()
    off = kept.another(prepares=False)
    for _ in range(2):
        await run_round(off)
    assert list(kept.stripe.active.values()) == [False]


async def test_while_pledges_wait_there_is_one_call_in_five_seconds(kept: Kept) -> None:
    drive = a_drive(drive_id=await kept.drive())
    await kept.books.consume(a_pledge(drive))
    for _ in range(4):
        await run_round(kept.preparer)
        await asyncio.sleep(0)
    assert kept.stripe.calls == 1


def test_amounts_that_cannot_be_read_are_left_out() -> None:
    menu = [{"currency": "USD", "value": "7.00"}, {"currency": "USD", "value": "7.001"}, {"value": "1"}]
    assert link_amounts(menu, "USD", ()) == [Money(700, "USD")]
    assert link_amounts([], "KWD", ())[0] == Money(25_000, "KWD")
