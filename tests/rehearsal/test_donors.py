"""Donors give once per intention, whatever the door does to them."""

import asyncio
from decimal import Decimal

import aiohttp
import pytest

from rehearsal.amounts import as_money
from rehearsal.curve import Arrival, Plan, winter
from rehearsal.donors import Donors, Pace, Pass, Refused
from rehearsal.door import Door, NoAnswer
from rehearsal.gifts import DECLINED_CARD, GOOD_CARD, After, Crowd, Intention
from tests.rehearsal.town import ADMIN, SECRET, Faults, Town
from tests.waiting import PATIENCE_S

ENTRY = Pass(SECRET, "pk_live_demo", "http://127.0.0.1:8000")


def donors_of(
    town: Town, session: aiohttp.ClientSession, least: int = 0, patience_s: float = 5.0, in_flight: int = 16
) -> Donors:
    door = Door(session, town.base, patience_s)
    return Donors(door, "winter", ENTRY, Pace(rush_s=0.0, least_gifts=least, in_flight=in_flight))


def intention(**changes: object) -> Intention:
    body = {"amount": as_money(2_501)}
    usual: dict[str, object] = {
        "number": 7,
        "key": "k-7",
        "amount_cents": 2_501,
        "body": body,
        "cards": (GOOD_CARD,),
        "after": After.NOTHING,
        "abandons": False,
        "publishable": False,
    }
    return Intention(**(usual | changes))  # type: ignore[arg-type]


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
async def test_each_intention_becomes_one_pledge_paid_once(
    town: Town, session: aiohttp.ClientSession, faults: Faults
) -> None:
    town.faults = faults
    plan = winter(gifts=120, seconds=0.2, seed=5)
    donors = donors_of(town, session, patience_s=30.0)

    await donors.give_all(plan, Crowd(plan, 5, "run"))

    tally = donors.tally
    assert (tally.troubles, tally.unsure) == ([], {})
    assert len(town.pledges) == tally.pledged == 120
    assert sorted(town.by_key) == sorted(f"run-{number}" for number in range(120))
    assert all(pledge.captures <= 1 for pledge in town.pledges.values())
    paid = {pledge.id: int(pledge.captured * 100) for pledge in town.pledges.values() if pledge.captures}
    assert tally.paid == paid
    assert len(paid) == 120 - tally.abandoned
    assert len(town.refunds) == tally.refunds >= 3
    assert sum(pledge.disputed for pledge in town.pledges.values()) == Decimal(tally.disputed_cents) / 100 > 0


async def test_the_rush_goes_on_until_the_least_number_of_gifts_is_paid(
    town: Town, session: aiohttp.ClientSession
) -> None:
    plan = Plan("one gift", (Arrival(0.0, 500),), lambda _: 1_000, frozenset())
    donors = donors_of(town, session, least=60)

    await donors.give_all(plan, Crowd(plan, 1, "run"))

    assert 60 <= len(donors.tally.paid) < 60 + 16 * 2


async def test_a_declined_card_is_followed_by_a_good_one(town: Town, session: aiohttp.ClientSession) -> None:
    donors = donors_of(town, session)

    await donors.give(intention(cards=(DECLINED_CARD, GOOD_CARD)))

    assert donors.tally.declined == 1
    assert donors.tally.paid == {"plg_1": 2_501}


async def test_a_donor_who_abandons_leaves_the_pledge_open(
    town: Town, session: aiohttp.ClientSession
) -> None:
    donors = donors_of(town, session)

    await donors.give(intention(abandons=True))

    assert town.pledges["plg_1"].status == "open"
    assert (donors.tally.abandoned, donors.tally.paid) == (1, {})


@pytest.mark.parametrize(
    ("after", "refunded"), [(After.REFUND, Decimal("25.01")), (After.PARTIAL_REFUND, Decimal("12.50"))]
)
async def test_a_refund_asks_back_all_or_half(
    town: Town, session: aiohttp.ClientSession, after: After, refunded: Decimal
) -> None:
    class OneDonor(Crowd):
        def intention(self, number: int) -> Intention:
            return intention(after=after)

    plan = Plan("one gift", (Arrival(0.0, 2_501),), lambda _: 100, frozenset())
    donors = donors_of(town, session, least=1, in_flight=1)

    await donors.give_all(plan, OneDonor(plan, seed=1, run="run"))

    assert town.pledges["plg_1"].refunded == refunded
    assert donors.tally.refunded_cents == refunded * 100


async def test_the_publishable_key_comes_with_its_origin_and_is_given_up_once_refused(
    town: Town, session: aiohttp.ClientSession
) -> None:
    town.faults = Faults(refuse_publishable=True)
    donors = donors_of(town, session)

    await donors.give(intention(key="k-1", publishable=True))
    await donors.give(intention(key="k-2", publishable=True))

    assert town.origins == [ENTRY.origin]
    assert len(donors.tally.paid) == 2


async def test_a_refusal_is_not_asked_again(town: Town, session: aiohttp.ClientSession) -> None:
    door = Door(session, town.base)

    reply = await door.post("/v1/keys", {}, {"Authorization": "Bearer nobody"})

    assert (reply.status, door.retries) == (401, 0)
    assert ADMIN not in reply.problem


async def test_a_door_that_never_answers_is_named_when_patience_ends(
    session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    door = Door(session, f"http://127.0.0.1:{unused_tcp_port}", patience_s=0.3)

    with pytest.raises(NoAnswer, match=f"GET http://127.0.0.1:{unused_tcp_port}/v1/x"):
        await door.get("/v1/x?token=secret")


async def test_a_door_that_comes_back_is_found_by_the_waiting_donor(
    session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    from aiohttp import web

    town = Town(base=f"http://127.0.0.1:{unused_tcp_port}")
    donors = donors_of(town, session, patience_s=PATIENCE_S)
    giving = asyncio.create_task(donors.give(intention()))
    door = donors._door
    async with asyncio.timeout(PATIENCE_S):
        while door.retries < 2:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.01)
    runner = web.AppRunner(town.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()

    await giving

    assert len(donors.tally.paid) == 1
    await runner.cleanup()


async def test_a_pledge_refused_is_told_with_its_reason(session: aiohttp.ClientSession, town: Town) -> None:
    donors = Donors(Door(session, town.base, 1.0), "summer", ENTRY, Pace(0.0, 0))

    with pytest.raises(Refused, match="pledge: 404"):
        await donors.give(intention())
