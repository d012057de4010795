"""Which moderators have a desk open: the same in every process of the gateway, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backbone.clock import FrozenClock
from gateway.app import MIGRATIONS
from gateway.desk.presence import GONE, MAX_DESKS, MAX_NAME, PAUSE, Presence
from gateway.tables import DESKS, MESSAGING_TABLES
from tests.engines import fresh_postgres
from tests.gateway.failing_database import FailingDatabase
from tests.gateway.harness import ADMIN, PLEDGE, Harness, gateway


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'gateway.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


@dataclass
class Installation:
    """Two processes of the gateway with one database."""

    database: FailingDatabase
    clock: FrozenClock
    one: Presence
    two: Presence

    async def stored(self) -> int:
        async with self.database.reading() as session:
            return int((await session.execute(select(func.count()).select_from(DESKS))).scalar_one())


@pytest.fixture
async def installation(url: str) -> AsyncIterator[Installation]:
    database, clock = FailingDatabase(url, MESSAGING_TABLES, synchronous="OFF"), FrozenClock()
    await database.migrate(MIGRATIONS)
    yield Installation(database, clock, Presence(database, clock), Presence(database, clock))
    database.down = False
    await database.close()


async def test_moderators_of_different_processes_see_each_other(installation: Installation) -> None:
    one, two = installation.one, installation.two
    assert await one.see("winter", "a", "Sara", "plg_1") == []
    assert await two.see("winter", "b", "عمر", "") == [{"desk": "a", "name": "Sara", "looking": "plg_1"}]
    assert await one.see("winter", "a", "Sara", "plg_2") == [{"desk": "b", "name": "عمر", "looking": ""}]
    assert await two.see("winter", "b", "عمر", "") == [{"desk": "a", "name": "Sara", "looking": "plg_2"}]
    assert await two.see("summer", "c", "Huda", "") == []
    assert await installation.stored() == 3


async def test_desk_without_polls_is_closed_and_deleted(installation: Installation) -> None:
    await installation.one.see("winter", "a", "Sara", "")
    installation.clock.move(GONE.total_seconds())
    assert await installation.two.see("winter", "b", "Omar", "")
    assert await installation.one.delete_gone() == 0
    installation.clock.move(0.001)
    assert await installation.two.see("winter", "b", "Omar", "") == []
    assert await installation.one.delete_gone() == 1
    assert await installation.stored() == 1


async def test_desks_and_names_are_bounded(installation: Installation) -> None:
    for number in range(MAX_DESKS + 5):
        installation.clock.move(0.001)
        await installation.one.see("winter", f"desk_{number}", "\u202e\x00" + "x" * 100, "")
    others = await installation.two.see("winter", "mine", "", "")
    assert others is not None
    assert len(others) == MAX_DESKS - 1
    assert "desk_5" not in {one["desk"] for one in others}  # the newest are shown
    assert {one["name"] for one in others} == {"x" * MAX_NAME}


async def test_presence_is_unknown_while_the_database_does_not_answer(installation: Installation) -> None:
    await installation.one.see("winter", "a", "Sara", "")
    installation.database.down = True
    assert await installation.two.see("winter", "b", "Omar", "") is None
    assert await installation.two.see("winter", "b", "Omar", "") is None
    assert installation.database.refused == 1  # the second poll did not wait for it
    installation.database.down = False
    installation.clock.move(PAUSE.total_seconds())
    assert await installation.two.see("winter", "b", "Omar", "") == [
        {"desk": "a", "name": "Sara", "looking": ""}
    ]


class Moderator:
    """A browser that is logged in at one gateway."""

    def __init__(self, harness: Harness, desk: str) -> None:
        self._harness, self._desk = harness, desk
        self._cookie = ""

    async def log_in(self, key: str) -> None:
        form, headers = {"key": key, "to": "/moderate/winter"}, {"Origin": self._harness.url}
        async with self._harness.session.post(
            "/session", data=form, headers=headers, allow_redirects=False
        ) as reply:
            assert reply.status == 303
            self._cookie = reply.headers["Set-Cookie"].partition(";")[0]

    async def look(self, looking: str = "") -> dict[str, object]:
        path = f"/moderate/winter/messages?desk={self._desk}&name={self._desk}&looking={looking}"
        status, _, found = await self._harness.get(path, Cookie=self._cookie)
        assert status == 200, found
        return dict(found)


async def test_two_gateways_on_one_database_show_their_moderators_to_each_other(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    decision = {"pledge": PLEDGE, "version": 1, "from": "held", "to": "hidden", "moderator": "sara"}
    async with (
        fresh_postgres() as url,
        gateway(tmp_path / "one", database_url_gateway=url) as one,
        gateway(tmp_path / "two", database_url_gateway=url) as two,
    ):
        for each in (one, two):
            each.pledges.answers["GET /v1/drives/winter/messages"] = (200, {"data": [], "next": None})
            each.pledges.answers["GET /v1/drives/winter/decisions"] = (
                200, {"data": [decision], "next": None}
            )  # fmt: skip
        sara, omar = Moderator(one, "sara"), Moderator(two, "omar")
        await sara.log_in(ADMIN)
        await omar.log_in(ADMIN)
        await sara.look(PLEDGE)
        found = await omar.look()
        assert found["desks"] == [{"desk": "sara", "name": "sara", "looking": PLEDGE}]
        told = {"pledge": PLEDGE, "version": 1, "state": "hidden", "name": "sara"}
        assert found["decisions"] == (await sara.look())["decisions"] == [told]
