"""The decisions about a message and about a drive's messages, page by page, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backbone.clock import FrozenClock
from backbone.database.database import Database
from services.pledges.tables import DONOR_TEXTS, MESSAGING_TABLES
from tests.engines import fresh_postgres
from tests.pledges.harness import Harness, pledges_harness
from tests.pledges.moderation.test_decisions import decide, held_pledge, listed, pledge


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'pledges.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


@pytest.fixture
async def both(url: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """Pledges on each store, with a clock that stands still."""
    async with pledges_harness(tmp_path, FrozenClock(), database_url_pledges=url) as harness:
        yield harness


async def pages(harness: Harness, path: str, limit: int) -> list[list[Any]]:
    """All pages of a list."""
    found, after = [], ""
    while True:
        reply = await harness.read(path, f"limit={limit}{after}", scopes=("moderation",))
        assert reply.status == 200, reply.body
        found.append(reply.json()["data"])
        if reply.json()["next"] is None:
            return found
        after = f"&after={reply.json()['next']}"


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_history_is_paged_and_complete(both: Harness, limit: int) -> None:
    held = await held_pledge(both)
    for step in ("approve", "hide", "pin", "hold", "approve"):
        assert (await decide(both, held, step, {"moderator": "Sara"})).json()["changed"]
    found = await pages(both, f"/v1/messages/{held}/history", limit)
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    steps = [one for page in found for one in page]
    assert [one["version"] for one in steps] == list(range(6))
    assert [one["to"] for one in steps] == ["held", "approved", "hidden", "pinned", "held", "approved"]
    assert [one["moderator"] for one in steps] == [None, *["Sara"] * 5]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_decisions_of_a_drive_are_newest_first_and_complete(both: Harness, limit: int) -> None:
    first = await held_pledge(both)
    second = await pledge(both, message="Hello")
    await both.drive("summer")
    elsewhere = (await both.pledge(drive="summer", body={"amount": {"currency": "USD", "value": "1.00"},
                                                         "message": "Hello"})).json()["id"]  # fmt: skip
    await decide(both, elsewhere, "hide")
    made = []
    for who, step in ((first, "approve"), (second, "hide"), (first, "hide"), (second, "pin")):
        reply = await decide(both, who, step, {"moderator": "\u202eSara\u200b"})
        made.append((who, reply.json()["version"], reply.json()["state"]))
    found = [one for page in await pages(both, "/v1/drives/winter/decisions", limit) for one in page]
    # All were made in the same microsecond: then by message and version.
    assert [(one["pledge"], one["version"], one["to"]) for one in found] == sorted(made, reverse=True)
    assert {one["moderator"] for one in found} == {"Sara"}


async def test_decisions_are_shown_to_the_drives_moderators_only(both: Harness) -> None:
    await held_pledge(both)
    path = "/v1/drives/winter/decisions"
    for who in ({"scopes": ("drives",)}, {"partner": "other"}, {"mode": "test"}):
        assert (await both.read(path, **({"scopes": ("moderation",)} | who))).status == 403
    assert (await both.read("/v1/drives/none/decisions")).status == 404
    for after in ("x", "1_2_3", f"{'9' * 18}_{'0' * 26}_1", f"1_{'0' * 26}_{'9' * 10}", "%00", "-1"):
        assert (await both.read(path, f"after={after}")).status == 422, after
    last = f"{'9' * 17}_{'z' * 26}_{'9' * 9}"
    assert (await both.read(path, f"after={last}")).json() == {"data": [], "next": None}


async def test_history_refuses_a_malformed_place(both: Harness) -> None:
    held = await held_pledge(both)
    path = f"/v1/messages/{held}/history"
    for after in ("x", "-1", "1.0", "1" * 10, "%D9%A1", "1%0A"):
        assert (await both.read(path, f"after={after}")).status == 422, after
    assert (await both.read(path, f"after={'9' * 9}")).json()["data"] == []


async def test_decision_sent_with_another_drive_is_not_found(both: Harness) -> None:
    held = await held_pledge(both)
    await both.drive("summer")
    path = f"/v1/messages/{held}/approve"
    for drive in ("summer", "none", "%00"):
        assert (await both.post(path, query=f"drive={drive}")).status == 404
        assert (await both.read(f"/v1/messages/{held}/history", f"drive={drive}")).status == 404
    (message,) = await listed(both, "held")
    assert message["version"] == 0
    for drive in ("winter", message["drive"]):
        assert (await both.post(path, query=f"drive={drive}")).status == 200


async def test_only_the_decision_that_counts_is_reported_as_a_change(both: Harness) -> None:
    """Otherwise a moderator could undo another's decision unknowingly."""
    held = await held_pledge(both)
    assert (await decide(both, held, "approve", {"seen_version": 0, "moderator": "Sara"})).json()["changed"]
    repeated = await decide(both, held, "approve", {"seen_version": 0, "moderator": "Omar"})
    assert (repeated.status, repeated.json()["changed"]) == (200, False)
    assert repeated.json()["decided"]["moderator"] == "Sara"
    refused = await decide(both, held, "hide", {"seen_version": 0})
    assert "Sara" in refused.json()["detail"]


async def test_message_that_is_listed_can_be_decided(both: Harness, url: str) -> None:
    """Migration 0004 marked texts without anything visible as approved too."""
    await both.drive()
    made = await pledge(both, message="Hello")
    database = Database(url, MESSAGING_TABLES)
    async with database.transaction() as session:
        await session.execute(
            update(DONOR_TEXTS).where(DONOR_TEXTS.c.pledge_id == made).values(message="\u200b")
        )
    await database.close()
    assert [one["message"] for one in await listed(both, "approved")] == [None]
    assert (await decide(both, made, "hide")).status == 200
    assert (await both.read(f"/v1/messages/{made}/history")).status == 200
