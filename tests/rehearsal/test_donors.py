"""Each planned donation is made exactly once, whatever faults the API has."""

import asyncio
from decimal import Decimal

import aiohttp
import pytest

from rehearsal.amounts import as_money
from rehearsal.api_client import ApiClient, NoAnswer
from rehearsal.curve import Arrival, Plan, winter
from rehearsal.donors import Credentials, Donors, LoadProfile, Refused
from rehearsal.gifts import DECLINED_CARD, GOOD_CARD, GiftPlanner, Outcome, PlannedGift
from tests.rehearsal.fake_backend import ADMIN, SECRET, FakeBackend, Faults
from tests.waiting import PATIENCE_S

ENTRY = Credentials(SECRET, "pk_live_demo", "http://127.0.0.1:8000")


def donors_of(
    backend: FakeBackend,
    session: aiohttp.ClientSession,
    least: int = 0,
    retry_for_s: float = 5.0,
    in_flight: int = 16,
) -> Donors:
    api = ApiClient(session, backend.base, retry_for_s)
    return Donors(api, "winter", ENTRY, LoadProfile(rush_s=0.0, least_gifts=least, in_flight=in_flight))


def planned_gift(**changes: object) -> PlannedGift:
    body = {"amount": as_money(2_501)}
    usual: dict[str, object] = {
        "number": 7,
        "key": "k-7",
        "amount_cents": 2_501,
        "body": body,
        "cards": (GOOD_CARD,),
        "outcome": Outcome.NOTHING,
        "abandons": False,
        "publishable": False,
    }
    return PlannedGift(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(cut_after_acting=3),
        Faults(unavailable=4, too_many=5),
        Faults(cut_after_acting=5, unavailable=6, too_many=7, late_checkout=True, refuse_publishable=True),
    ],
    ids=["fair weather", "lines cut after acting", "503 and 429", "everything at once"],
)
async def test_each_planned_gift_is_pledged_and_paid_once(
    backend: FakeBackend, session: aiohttp.ClientSession, faults: Faults
) -> None:
    backend.faults = faults
    plan = winter(gifts=120, seconds=0.2, seed=5)
    donors = donors_of(backend, session, retry_for_s=30.0)

    await donors.donate_all(plan, GiftPlanner(plan, 5, "run"))

    tally = donors.tally
    assert (tally.errors, tally.unsure) == ([], {})
    assert len(backend.pledges) == tally.pledged == 120
    assert sorted(backend.by_key) == sorted(f"run-{number}" for number in range(120))
    assert all(pledge.captures <= 1 for pledge in backend.pledges.values())
    paid = {pledge.id: int(pledge.captured * 100) for pledge in backend.pledges.values() if pledge.captures}
    assert tally.paid == paid
    assert len(paid) == 120 - tally.abandoned
    assert len(backend.refunds) == tally.refunds >= 3
    assert (
        sum(pledge.disputed for pledge in backend.pledges.values()) == Decimal(tally.disputed_cents) / 100 > 0
    )


async def test_rush_continues_until_the_minimum_of_donations_is_paid(
    backend: FakeBackend, session: aiohttp.ClientSession
) -> None:
    plan = Plan("one gift", (Arrival(0.0, 500),), lambda _: 1_000, frozenset())
    donors = donors_of(backend, session, least=60)

    await donors.donate_all(plan, GiftPlanner(plan, 1, "run"))

    assert 60 <= len(donors.tally.paid) < 60 + 16 * 2


async def test_donor_uses_another_card_after_a_decline(
    backend: FakeBackend, session: aiohttp.ClientSession
) -> None:
    donors = donors_of(backend, session)

    await donors.donate(planned_gift(cards=(DECLINED_CARD, GOOD_CARD)))

    assert donors.tally.declined == 1
    assert donors.tally.paid == {"plg_1": 2_501}


async def test_abandoned_checkout_leaves_the_pledge_open(
    backend: FakeBackend, session: aiohttp.ClientSession
) -> None:
    donors = donors_of(backend, session)

    await donors.donate(planned_gift(abandons=True))

    assert backend.pledges["plg_1"].status == "open"
    assert (donors.tally.abandoned, donors.tally.paid) == (1, {})


@pytest.mark.parametrize(
    ("outcome", "refunded"), [(Outcome.REFUND, Decimal("25.01")), (Outcome.PARTIAL_REFUND, Decimal("12.50"))]
)
async def test_refund_is_full_or_half(
    backend: FakeBackend, session: aiohttp.ClientSession, outcome: Outcome, refunded: Decimal
) -> None:
    class OneDonor(GiftPlanner):
        def planned_gift(self, number: int) -> PlannedGift:
            return planned_gift(outcome=outcome)

    plan = Plan("one gift", (Arrival(0.0, 2_501),), lambda _: 100, frozenset())
    donors = donors_of(backend, session, least=1, in_flight=1)

    await donors.donate_all(plan, OneDonor(plan, seed=1, run="run"))

    assert backend.pledges["plg_1"].refunded == refunded
    assert donors.tally.refunded_cents == refunded * 100


async def test_publishable_key_is_sent_with_its_origin_and_not_used_after_a_refusal(
    backend: FakeBackend, session: aiohttp.ClientSession
) -> None:
    backend.faults = Faults(refuse_publishable=True)
    donors = donors_of(backend, session)

    await donors.donate(planned_gift(key="k-1", publishable=True))
    await donors.donate(planned_gift(key="k-2", publishable=True))

    assert backend.origins == [ENTRY.origin]
    assert len(donors.tally.paid) == 2


async def test_refused_request_is_not_retried(backend: FakeBackend, session: aiohttp.ClientSession) -> None:
    api = ApiClient(session, backend.base)

    reply = await api.post("/v1/keys", {}, {"Authorization": "Bearer nobody"})

    assert (reply.status, api.retries) == (401, 0)
    assert ADMIN not in reply.problem


async def test_unreachable_api_is_reported_after_the_retries(
    session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    api = ApiClient(session, f"http://127.0.0.1:{unused_tcp_port}", retry_for_s=0.3)

    with pytest.raises(NoAnswer, match=f"GET http://127.0.0.1:{unused_tcp_port}/v1/x"):
        await api.get("/v1/x?token=secret")


async def test_request_succeeds_once_the_api_is_reachable_again(
    session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    from aiohttp import web

    backend = FakeBackend(base=f"http://127.0.0.1:{unused_tcp_port}")
    donors = donors_of(backend, session, retry_for_s=PATIENCE_S)
    giving = asyncio.create_task(donors.donate(planned_gift()))
    api = donors._api
    async with asyncio.timeout(PATIENCE_S):
        while api.retries < 2:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.01)
    runner = web.AppRunner(backend.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()

    await giving

    assert len(donors.tally.paid) == 1
    await runner.cleanup()


async def test_refused_pledge_is_reported_with_its_reason(
    session: aiohttp.ClientSession, backend: FakeBackend
) -> None:
    donors = Donors(ApiClient(session, backend.base, 1.0), "summer", ENTRY, LoadProfile(0.0, 0))

    with pytest.raises(Refused, match="pledge: 404"):
        await donors.donate(planned_gift())
