"""The HTTP API, called as the gateway and the other services call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient
from services.leaderboard.hash_chain import verify
from services.leaderboard.tables import donors, payments
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    SECRET,
    FakePledges,
    Leaderboard,
    creator,
    drive,
    open_database,
    payment,
    running,
)
from tests.waiting import until


@pytest.fixture
async def leaderboard(tmp_path: Path) -> AsyncIterator[Leaderboard]:
    display_texts = FakePledges({"plg_1": {"name": "Huda", "message": "for the winter"}})
    async with running(tmp_path, pledges=display_texts) as running_:
        gifts = [
            payment(f"pay_{number}", 100 * number, creator_id=f"crt_{number}", pledge_id=f"plg_{number}")
            for number in range(1, 8)
        ]
        await running_.publish(
            drive(), *(creator(f"crt_{number}", f"n{number}") for number in range(9)), *gifts
        )
        await until(running_.is_drained)
        yield running_


async def test_creators_are_ranked_by_amount(leaderboard: Leaderboard) -> None:
    for ref in (DRIVE, "winter"):
        reply = await leaderboard.get(f"/v1/drives/{ref}/leaderboards/creators", "window=all&limit=2")
        assert reply.status == 200
        assert reply.json()["sequence"] == 8
        assert reply.json()["data"] == [
            {
                "rank": rank,
                "creator": f"crt_{number}",
                "slug": f"n{number}",
                "name": f"n{number}",
                "raised": {"currency": "USD", "value": f"{number}.00"},
                "donations": 1,
            }
            for rank, number in ((1, 7), (2, 6))
        ]


async def test_freshness_of_another_replicas_drive_comes_from_the_gateway(leaderboard: Leaderboard) -> None:
    path, at = f"/v1/drives/{DRIVE}/leaderboards/creators", "2022-01-07T12:00:00.000Z"
    assert (await leaderboard.get(path)).json()["as_of"] is None  # no watermark has been received
    headers = {**sign_caller(SECRET, partner="public", scopes=()), "ataa-as-of": at}
    reply = await InProcessServiceClient(leaderboard.service.app).request("GET", path, headers=headers)
    assert reply.json()["as_of"] == at


async def test_around_returns_the_ranks_around_a_creator(leaderboard: Leaderboard) -> None:
    reply = await leaderboard.get(f"/v1/drives/{DRIVE}/leaderboards/creators", "around=crt_4&limit=3")
    assert [(one["rank"], one["creator"]) for one in reply.json()["data"]] == [
        (3, "crt_5"),
        (4, "crt_4"),
        (5, "crt_3"),
    ]
    reply = await leaderboard.get(f"/v1/drives/{DRIVE}/leaderboards/creators", "around=crt_0")
    assert reply.json()["data"] == []


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/v1/drives/unknown/leaderboards/creators", "", 404),
        ("/v1/drives/unknown/events", "", 404),
        ("/v1/drives/unknown/leaderboards/donors", "window=1h", 404),
        ("/v1/drives/unknown/donations", "", 404),
        (f"/v1/drives/{DRIVE}/leaderboards/cities", "", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/creators", "window=2h", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/donors", "around=dnr_x", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/teams", "around=Red", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/sources", "around=x&window=1h", 422),
        (f"/v1/drives/{DRIVE}/donations", "after=x", 422),
        (f"/v1/drives/{DRIVE}/donations", "limit=0", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/creators", "around=crt_x", 422),
        (f"/v1/drives/{DRIVE}/leaderboards/creators", "limit=101", 422),
        (f"/v1/drives/{DRIVE}/events", "limit=0", 422),
        (f"/v1/drives/{DRIVE}/events", "after=-1", 422),
        (f"/v1/drives/{DRIVE}/events", "after=%D9%A1x", 422),
    ],
)
async def test_unknown_resource_is_a_problem(
    leaderboard: Leaderboard, path: str, query: str, status: int
) -> None:
    reply = await leaderboard.get(path, query)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == status


async def test_nul_in_the_query_is_refused(leaderboard: Leaderboard) -> None:
    reply = await leaderboard.get(f"/v1/drives/{DRIVE}/leaderboards/creators", "around=%00")
    assert reply.json()["errors"] == [
        {"pointer": "/query/around", "detail": "must not contain the character NUL"}
    ]


async def test_unknown_leaderboard_lists_the_known_ones(leaderboard: Leaderboard) -> None:
    reply = await leaderboard.get(f"/v1/drives/{DRIVE}/leaderboards/cities")
    assert "creators" in reply.json()["errors"][0]["detail"]


async def test_log_is_paged_without_gaps_and_verifiable(leaderboard: Leaderboard) -> None:
    rows, following = [], "0"
    while following is not None:
        page = (await leaderboard.get("/v1/drives/winter/events", f"after={following}&limit=3")).json()
        assert len(page["data"]) <= 3
        rows += page["data"]
        following = page["next"]
    assert [row["sequence"] for row in rows] == list(range(1, 9))
    assert verify(DRIVE, 1, rows) is None
    assert (await leaderboard.get("/v1/drives/winter/events", "after=8")).json() == {"data": [], "next": None}


async def test_request_without_a_signed_caller_is_refused(leaderboard: Leaderboard) -> None:
    peer = InProcessServiceClient(leaderboard.service.app)
    for path in (f"/v1/drives/{DRIVE}/events", "/internal/books", "/internal/quiet"):
        assert (await peer.request("GET", path, headers={})).status == 401
    assert (await leaderboard.get("/internal/books")).status == 403


async def test_books_are_the_net_of_all_payments(leaderboard: Leaderboard) -> None:
    await leaderboard.publish(payment("pay_8", 500, refunded=100, held=True, currency="KWD"))
    await until(leaderboard.is_drained)
    books = await leaderboard.get("/internal/books", internal=True)
    assert books.json() == {"KWD": "0.400", "USD": "28.00"}


async def test_differences_are_reported(leaderboard: Leaderboard, tmp_path: Path) -> None:
    assert (await leaderboard.get("/internal/differences", internal=True)).json() == {"data": []}
    async with open_database(tmp_path) as database, database.transaction() as session:
        await session.execute(update(payments).where(payments.c.payment_id == "pay_1").values(captured=1))
    found = (await leaderboard.get("/internal/differences", internal=True)).json()["data"]
    assert any("books USD" in line for line in found)
    assert any("captured" in line for line in found)


async def test_differences_of_boards_are_reported_although_they_lack_payments(
    leaderboard: Leaderboard, tmp_path: Path
) -> None:
    assert (await leaderboard.get("/internal/differences", internal=True)).json() == {"data": []}
    async with open_database(tmp_path) as database, database.transaction() as session:
        await session.execute(update(donors).values(raised=donors.c.raised + 1))
    await leaderboard.publish(payment("pay_9", 500, donor_id="dnr_9", captured_at=NOON))
    await until(leaderboard.is_drained)
    found = (await leaderboard.get("/internal/differences", internal=True)).json()["data"]
    assert any("donor_key" in line for line in found), found


async def test_display_texts_are_fetched_once_and_stored(leaderboard: Leaderboard) -> None:
    reply = await leaderboard.post("/internal/displays", {"ids": ["plg_1", "plg_unknown"]})
    assert reply.json()["data"] == {
        "plg_1": {"name": "Huda", "message": "for the winter"},
        "plg_unknown": {"name": None, "message": None},
    }
    leaderboard.pledges.unavailable = True
    reply = await leaderboard.post("/internal/displays", {"ids": ["plg_1", "plg_new"]})
    assert reply.json()["data"] == {"plg_1": {"name": "Huda", "message": "for the winter"}}


async def test_health_routes_answer(leaderboard: Leaderboard) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        assert (await leaderboard.get(path)).status == 200
