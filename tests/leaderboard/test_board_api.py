"""Boards and the list of donations, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backbone.contracts.pledges import Source
from tests.leaderboard.builders import DRIVE, FakePledges, Leaderboard, creator, drive, payment, running
from tests.waiting import until

NOW = datetime.now(UTC).replace(microsecond=0)
BOARDS = f"/v1/drives/{DRIVE}/leaderboards"
TEXTS: dict[str, dict[str, str | None]] = {
    "plg_1": {"name": "Huda", "message": "for the winter"},
    "plg_2": {"name": "Huda A.", "message": None},
    "plg_3": {"name": None, "message": "shukran"},
    "plg_4": {"name": None, "message": None},
    "plg_5": {"name": "Sami", "message": None},
}


def gift(number: int, amount: int, hours_ago: float, donor: str, **other: Any) -> Any:
    return payment(
        f"pay_{number}",
        amount,
        pledge_id=f"plg_{number}",
        donor_id=donor,
        captured_at=NOW - timedelta(hours=hours_ago),
        **other,
    )


@pytest.fixture
async def leaderboard(tmp_path: Path) -> AsyncIterator[Leaderboard]:
    youtube, twitch = Source(platform="youtube"), Source(platform="twitch", campaign="a/b")
    async with running(tmp_path, pledges=FakePledges(TEXTS)) as running_:
        await running_.publish(
            drive(),
            *(
                creator(f"crt_{one}", one, team=team)
                for one, team in {"a": "Red", "b": "Red", "c": None}.items()
            ),
            gift(1, 500, 30, "dnr_huda", creator_id="crt_a", source=youtube),
            gift(2, 700, 2, "dnr_huda", creator_id="crt_b", source=twitch),
            gift(3, 900, 0.5, "dnr_huda", anonymous=True, creator_id="crt_c", source=twitch),
            gift(4, 400, 0.4, "dnr_huda", anonymous=True),
            gift(5, 1100, 0.3, "dnr_sami", creator_id="crt_a", source=youtube),
        )
        await until(running_.is_drained)
        yield running_


async def board(leaderboard: Leaderboard, name: str, query: str = "") -> list[Any]:
    reply = await leaderboard.get(f"{BOARDS}/{name}", query)
    assert reply.status == 200, reply.body
    return [{**place, "raised": place["raised"]["value"]} for place in reply.json()["data"]]


async def test_unnamed_gifts_stand_apart_from_the_same_donors_named_ones(leaderboard: Leaderboard) -> None:
    places = await board(leaderboard, "donors")
    unnamed = places[0].pop("donor")
    assert places == [
        {"rank": 1, "name": None, "raised": "13.00", "donations": 2},
        {"rank": 2, "donor": "dnr_huda", "name": "Huda A.", "raised": "12.00", "donations": 2},
        {"rank": 3, "donor": "dnr_sami", "name": "Sami", "raised": "11.00", "donations": 1},
    ]
    assert unnamed.startswith("dnr_")
    assert unnamed != "dnr_huda"
    around = await board(leaderboard, "donors", f"around={unnamed}&limit=1")
    assert [(one["donor"], one["name"]) for one in around] == [(unnamed, None)]


async def test_windows_show_what_was_given_in_them(leaderboard: Leaderboard) -> None:
    day = await board(leaderboard, "donors", "window=24h")
    assert [(one["name"], one["raised"]) for one in day] == [
        (None, "13.00"),
        ("Sami", "11.00"),
        ("Huda A.", "7.00"),
    ]
    hour = await board(leaderboard, "creators", "window=1h")
    assert [(one["rank"], one["slug"], one["raised"]) for one in hour] == [
        (1, "a", "11.00"),
        (2, "c", "9.00"),
    ]


async def test_teams_are_the_sums_of_their_creators(leaderboard: Leaderboard) -> None:
    assert await board(leaderboard, "teams") == [
        {"rank": 1, "team": "Red", "raised": "23.00", "donations": 3}
    ]
    assert [one["raised"] for one in await board(leaderboard, "teams", "window=24h")] == ["18.00"]
    await leaderboard.publish(creator("crt_c", "c", version=2, team="Blue"))
    await until(leaderboard.is_drained)
    assert [one["team"] for one in await board(leaderboard, "teams")] == ["Red", "Blue"]
    assert [one["rank"] for one in await board(leaderboard, "teams", "around=Blue&limit=1")] == [2]


async def test_sources_are_platforms_with_campaigns(leaderboard: Leaderboard) -> None:
    assert await board(leaderboard, "sources") == [
        {"rank": rank, "source": source, "platform": platform, "campaign": campaign} | sums
        for rank, source, platform, campaign, sums in (
            (1, "twitch/a%2Fb", "twitch", "a/b", {"raised": "16.00", "donations": 2}),
            (2, "youtube", "youtube", None, {"raised": "16.00", "donations": 2}),
        )
    ]
    around = await board(leaderboard, "sources", "around=twitch%2Fa%252Fb&limit=1")
    assert [one["source"] for one in around] == ["twitch/a%2Fb"]


async def test_refund_is_on_every_board_when_the_log_has_it(leaderboard: Leaderboard) -> None:
    await leaderboard.publish(
        payment(
            "pay_5", 1100, refunded=1000, version=2, pledge_id="plg_5", donor_id="dnr_sami",
            captured_at=NOW - timedelta(hours=0.3), creator_id="crt_a", source=Source(platform="youtube"),
        )
    )  # fmt: skip
    await until(leaderboard.is_drained)
    reply = await leaderboard.get(f"{BOARDS}/donors", "window=1h")
    assert reply.json()["sequence"] == 7
    assert [one["raised"]["value"] for one in reply.json()["data"]] == ["13.00", "1.00"]
    for name, raised in (("creators", ["9.00", "1.00"]), ("teams", ["1.00"]), ("sources", ["9.00", "1.00"])):
        assert [one["raised"] for one in await board(leaderboard, name, "window=1h")] == raised


async def test_creator_without_an_amount_has_no_place(leaderboard: Leaderboard) -> None:
    assert await board(leaderboard, "creators", "window=1h&around=crt_b") == []


async def test_etag_of_a_board_changes_with_its_places_only(leaderboard: Leaderboard) -> None:
    path = f"{BOARDS}/donors"
    first = (await leaderboard.get(path)).headers["etag"]
    assert (await leaderboard.get(path)).headers["etag"] == first
    await leaderboard.publish(gift(6, 100, 0.1, "dnr_sami", creator_id="crt_a"))
    await until(leaderboard.is_drained)

    async def changed() -> bool:
        return (await leaderboard.get(path)).headers["etag"] != first

    await until(changed)


async def test_donations_are_listed_newest_first_with_the_texts_that_may_be_shown(
    leaderboard: Leaderboard,
) -> None:
    path, found, after = f"/v1/drives/{DRIVE}/donations", [], ""
    while True:
        page = (await leaderboard.get(path, f"limit=2{after}")).json()
        assert len(page["data"]) <= 2
        found += page["data"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [(one["id"], one["name"], one["message"]) for one in found] == [
        ("don_5", "Sami", None),
        ("don_4", None, None),
        ("don_3", None, "shukran"),
        ("don_2", "Huda A.", None),
        ("don_1", "Huda", "for the winter"),
    ]
    assert found[-1]["amount"] == {"currency": "USD", "value": "5.00"}
    assert found[-1]["creator"] == "crt_a"
    await leaderboard.publish(
        gift(4, 400, 0.4, "dnr_huda", anonymous=True, refunded=400, version=2),
        gift(6, 400, 0.1, "dnr_huda", held=True),
    )
    await until(leaderboard.is_drained)
    shown = (await leaderboard.get(path)).json()["data"]
    assert [one["id"] for one in shown] == ["don_5", "don_3", "don_2", "don_1"]
