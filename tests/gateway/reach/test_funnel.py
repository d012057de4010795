from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from backbone.clock import FrozenClock
from backbone.database.database import Database
from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceResponse
from gateway.reach.funnel_counts import KEPT_S, MAX_WAITING, FunnelCounts, Period
from gateway.reach.sources import Source
from gateway.reach.visits import MAX_COUNTS, MAX_SOURCES, OTHER, Visits, hour_of
from gateway.tables import MESSAGING_TABLES, VISITS
from tests.engines import fresh_postgres
from tests.gateway.harness import ADMIN, DRIVE, Harness, bearer, gateway
from tests.gateway.reach.drive_page import know
from tests.migrated import place
from tests.waiting import until

SEEN = "/d/winter/visits?step=seen"


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """The gateway's database, migrated, on each store."""
    from gateway.app import MIGRATIONS

    if request.param == "sqlite":
        place("gateway", tmp_path, {})
        one = Database(f"sqlite:///{tmp_path / 'gateway.db'}", MESSAGING_TABLES, synchronous="OFF")
        await one.migrate(MIGRATIONS)
        yield one
        await one.close()
        return
    async with fresh_postgres() as url:
        one = Database(url, MESSAGING_TABLES)
        await one.migrate(MIGRATIONS)
        yield one
        await one.close()


def day(clock: FrozenClock) -> tuple[datetime, datetime]:
    hour = hour_of(clock.now())
    return hour - timedelta(hours=23), hour + timedelta(hours=1)


# --- counting ---


async def test_replicas_add_up(database: Database) -> None:
    clock = FrozenClock()
    replicas = [Visits(database, clock) for _ in range(3)]
    for number, visits in enumerate(replicas):
        for _ in range(number + 1):
            visits.count("drv_1", Source("tiktok"), "seen")
        visits.count("drv_1", Source(), "opened")
        visits.count("drv_2", Source("tiktok"), "seen")
    await asyncio.gather(*(visits.flush() for visits in replicas))
    await replicas[0].flush()
    assert await replicas[0].of("drv_1", *day(clock)) == {"tiktok": (6, 0), "": (0, 3)}
    assert await replicas[0].of("drv_2", *day(clock)) == {"tiktok": (3, 0)}


async def test_views_are_found_in_their_hour_only(database: Database) -> None:
    clock = FrozenClock()
    visits = Visits(database, clock)
    first = hour_of(clock.now())
    for _ in range(3):
        visits.count("drv_1", Source("x"), "seen")
        clock.move(3600)
    await visits.flush()
    hour = timedelta(hours=1)
    assert await visits.of("drv_1", first, first + hour) == {"x": (1, 0)}
    assert await visits.of("drv_1", first + hour, first + 5 * hour) == {"x": (2, 0)}
    assert await visits.of("drv_1", first - hour, first) == {}


async def test_flood_of_sources_stays_bounded_in_memory_and_in_the_table(database: Database) -> None:
    clock = FrozenClock()
    replicas = [Visits(database, clock) for _ in range(2)]
    for number, visits in enumerate(replicas):
        for n in range(3000):
            visits.count("drv_1", Source("tiktok", f"{number}-{n}"), "seen")
        assert len(visits._pending) <= MAX_SOURCES + 1
        await visits.flush()
    async with database.reading() as session:
        rows = (
            await session.execute(select(func.count(), func.sum(VISITS.c.seen)).select_from(VISITS))
        ).one()
    assert rows[0] <= MAX_SOURCES + 1
    assert rows[1] == 6000
    assert (await replicas[0].of("drv_1", *day(clock)))[OTHER][0] == 6000 - MAX_SOURCES


async def test_views_that_cannot_be_stored_are_stored_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FrozenClock()
    visits = Visits(database, clock)
    visits.count("drv_1", Source("x"), "seen")

    def refuse() -> Any:
        raise ConnectionError("no database")

    with monkeypatch.context() as broken:
        broken.setattr(database, "lossy_transaction", refuse)
        await visits.flush()
    visits.count("drv_1", Source("x"), "seen")
    await visits.flush()
    assert await visits.of("drv_1", *day(clock)) == {"x": (2, 0)}


async def test_old_counts_are_deleted(database: Database) -> None:
    clock = FrozenClock()
    visits = Visits(database, clock)
    visits.count("drv_1", Source("x"), "seen")
    await visits.flush()
    assert await visits.delete_old() == 0
    clock.move(401 * 86_400)
    assert await visits.delete_old() == 1


VIEWS = st.lists(
    st.tuples(
        st.sampled_from(["drv_1", "drv_2"]),
        st.integers(0, 2 * MAX_SOURCES),
        st.sampled_from(["seen", "opened"]),
        st.integers(0, 7200),
        st.booleans(),
    ),
    max_size=80,
)


@given(views=VIEWS)
@settings(max_examples=25, deadline=None)
def test_sums_are_the_views_whatever_their_order_and_flushes(
    tmp_path_factory: pytest.TempPathFactory, views: Sequence[Any]
) -> None:
    asyncio.run(count_all(tmp_path_factory.mktemp("visits"), views))


async def count_all(folder: Path, views: Sequence[Any]) -> None:
    place("gateway", folder, {})
    database = Database(f"sqlite:///{folder / 'gateway.db'}", MESSAGING_TABLES, synchronous="OFF")
    clock = FrozenClock()
    visits, wanted = Visits(database, clock), Counter[tuple[str, str]]()
    for drive, source, step, pause_s, flushed in views:
        visits.count(drive, Source(f"p{source}"), step)
        wanted[drive, step] += 1
        clock.move(pause_s)
        if flushed:
            await visits.flush()
    await visits.flush()
    end = hour_of(clock.now()) + timedelta(hours=1)
    found = Counter[tuple[str, str]]()
    for drive in ("drv_1", "drv_2"):
        for seen, opened in (await visits.of(drive, end - timedelta(days=30), end)).values():
            found += Counter({(drive, "seen"): seen, (drive, "opened"): opened})
    await database.close()
    assert found == wanted


def test_counts_in_memory_are_bounded() -> None:
    visits = Visits(None, FrozenClock())
    for n in range(MAX_COUNTS + 10):
        visits.count(f"drv_{n}", Source(), "seen")
    assert len(visits._pending) == MAX_COUNTS


# --- the script's reports ---


async def report(harness: Harness, path: str = SEEN, **headers: str) -> int:
    async with harness.session.post(path, headers={"Origin": harness.url, **headers}) as reply:
        return reply.status


def visits_of(harness: Harness) -> Visits:
    found: Visits = next(one.run.__self__ for one in harness.service.workers if one.name == "gateway.visits")  # type: ignore[attr-defined]
    return found


async def test_view_is_counted_with_its_source(harness: Harness) -> None:
    know(harness)
    assert await report(harness, f"{SEEN}&utm_source=TikTok&campaign=%23Winter") == 204
    assert await report(harness, "/d/Winter/visits?step=opened") == 204
    pending = {
        (place.drive_id, source, step): n for (place, source, step), n in visits_of(harness)._pending.items()
    }
    assert pending == {(DRIVE, "tiktok/winter", "seen"): 1, (DRIVE, "", "opened"): 1}


@pytest.mark.parametrize("header", ["DNT", "Sec-GPC"])
async def test_visitor_who_asks_not_to_be_tracked_is_not_counted(harness: Harness, header: str) -> None:
    know(harness)
    assert await report(harness, **{header: "1"}) == 204
    assert visits_of(harness)._pending == {}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SEEN, {"Origin": "https://evil.example"}, 403),
        (SEEN, {"Origin": ""}, 403),
        (SEEN, {"Origin": "null"}, 403),
        (SEEN, {"Origin": "https://[::"}, 403),
        ("/d/winter/visits", {}, 422),
        ("/d/winter/visits?step=paid", {}, 422),
        ("/d/nowhere/visits?step=seen", {}, 404),
    ],
)
async def test_report_that_no_page_makes_is_refused(
    harness: Harness, path: str, headers: dict[str, str], status: int
) -> None:
    know(harness)
    assert await report(harness, path, **headers) == status
    assert visits_of(harness)._pending == {}


async def test_reports_of_one_address_are_limited(tmp_path: Path) -> None:
    limits = {"trusted_proxies": "127.0.0.1", "limit_address_per_s": 0.001, "limit_burst_s": 3000}
    async with gateway(tmp_path, **limits) as harness:
        know(harness)
        outside = {"X-Forwarded-For": "198.51.100.7"}
        assert [await report(harness, **outside) for _ in range(5)] == [204, 204, 204, 429, 429]


# --- the funnel ---


def answer(harness: Harness, pledged: Sequence[Any], paid: Sequence[Any], *, complete: bool = True) -> None:
    names = ("platform", "campaign")
    rows = [dict(zip((*names, "pledged"), row, strict=True)) for row in pledged]
    gifts = [dict(zip((*names, "paid", "raised"), row, strict=True)) for row in paid]
    harness.pledges.answers["POST /internal/funnel"] = (200, {"complete": complete, "data": rows})
    harness.leaderboard.answers["POST /internal/funnel"] = (200, {"complete": True, "data": gifts})


async def test_funnel_puts_views_pledges_and_money_of_a_source_together(harness: Harness) -> None:
    know(harness, partner="aboflah")
    answer(
        harness,
        [("TikTok", "Winter", 3), ("tiktok", "winter", 2), (None, None, 1)],
        [("tiktok", "winter", 4, 10050), (None, None, 1, 500)],
    )
    for step in ("seen", "seen", "opened"):
        await report(harness, f"/d/winter/visits?step={step}&platform=tiktok&campaign=winter")
    await visits_of(harness).flush()
    key = await harness.key(kind="secret", partner="aboflah", scopes=["drives"])
    status, headers, found = await harness.get("/v1/drives/winter/funnel", **bearer(key))
    assert (status, headers["Cache-Control"]) == (200, "private, no-store")
    usd = {"currency": "USD"}
    assert found["data"] == [
        {
            "source": "tiktok/winter", "platform": "tiktok", "campaign": "winter",
            "seen": 2, "opened": 1, "pledged": 5, "paid": 4, "raised": {**usd, "value": "100.50"},
        },
        {
            "source": None, "platform": None, "campaign": None,
            "seen": 0, "opened": 0, "pledged": 1, "paid": 1, "raised": {**usd, "value": "5.00"},
        },
    ]  # fmt: skip


async def test_funnel_is_for_the_owner_and_admins_only(harness: Harness) -> None:
    know(harness, partner="aboflah")
    answer(harness, [], [])
    path = "/v1/drives/winter/funnel"
    assert (await harness.get(path))[0] == 401
    assert (await harness.get(path, **bearer(ADMIN)))[0] == 200
    other = await harness.key(kind="secret", partner="noor", scopes=["drives"])
    status, _, problem = await harness.get(path, **bearer(other))
    assert (status, problem["type"]) == (403, "/problems/not-your-drive")
    unscoped = await harness.key(kind="secret", partner="aboflah", scopes=["pledges"])
    assert (await harness.get(path, **bearer(unscoped)))[0] == 403
    test = await harness.key(kind="secret", mode="test", partner="aboflah", scopes=["drives"])
    assert (await harness.get(path, **bearer(test)))[0] == 403
    public = await harness.key(kind="publishable", partner="aboflah", origins=["https://a.example"])
    assert (await harness.get(path, Origin="https://a.example", **bearer(public)))[0] == 403
    assert (await harness.get("/v1/drives/nowhere/funnel", **bearer(ADMIN)))[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "since=1", "until=0001-01-01T00:00:00Z", "since=9999-12-31T23:59:59Z",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "since=2025-01-01T00:00:00Z&until=2026-01-01T00:00:00Z",
        "since=%E2%80%AE", "until=2026-13-01T00:00:00Z",
    ],
)  # fmt: skip
async def test_period_that_is_none_is_refused(harness: Harness, query: str) -> None:
    know(harness)
    answer(harness, [], [])
    status, _, problem = await harness.get(f"/v1/drives/winter/funnel?{query}", **bearer(ADMIN))
    assert (status, problem["type"]) == (422, "/problems/invalid-request")


async def test_period_is_whole_hours(frozen: Harness) -> None:
    know(frozen)
    answer(frozen, [], [])
    query = "since=2026-01-07T12:34:56Z&until=2026-01-07T14:00:00%2B00:00"
    _, _, found = await frozen.get(f"/v1/drives/winter/funnel?{query}", **bearer(ADMIN))
    assert (found["since"], found["until"]) == ("2026-01-07T12:00:00.000Z", "2026-01-07T14:00:00.000Z")
    _, _, found = await frozen.get("/v1/drives/winter/funnel", **bearer(ADMIN))
    assert datetime.fromisoformat(found["until"]) > frozen.clock.now().astimezone(UTC)


async def test_funnel_of_many_sources_is_bounded_and_loses_nothing(harness: Harness) -> None:
    know(harness)
    answer(harness, [("x", f"c{n}", 1) for n in range(500)], [("x", f"c{n}", 1, n) for n in range(500)])
    _, _, found = await harness.get("/v1/drives/winter/funnel", **bearer(ADMIN))
    assert len(found["data"]) == 201
    assert found["data"][-1]["source"] == OTHER
    assert sum(row["pledged"] for row in found["data"]) == 500
    assert sum(int(row["raised"]["value"].replace(".", "")) for row in found["data"]) == sum(range(500))


async def test_period_with_too_many_pledges_is_refused_with_its_own_problem(harness: Harness) -> None:
    know(harness)
    answer(harness, [], [], complete=False)
    status, _, problem = await harness.get("/v1/drives/winter/funnel", **bearer(ADMIN))
    assert (status, problem["type"]) == (422, "/problems/period-too-long")
    assert "a million" in problem["detail"]


def counted_times(harness: Harness) -> int:
    return harness.pledges.lines().count("POST /internal/funnel")


async def test_equal_funnels_are_counted_once_in_ten_seconds(harness: Harness) -> None:
    know(harness)
    answer(harness, [("x", None, 1)], [])
    harness.pledges.gate.clear()
    asked = [
        asyncio.create_task(harness.get(f"/v1/drives/{ref}/funnel", **bearer(ADMIN)))
        for ref in ("winter", DRIVE) * 5
    ]
    await until(lambda: harness.pledges.lines().count("POST /internal/drives") >= 10)
    harness.pledges.gate.set()
    assert {reply[2]["data"][0]["pledged"] for reply in await asyncio.gather(*asked)} == {1}
    answer(harness, [("x", None, 2)], [])
    path = "/v1/drives/winter/funnel"
    assert (await harness.get(path, **bearer(ADMIN)))[2]["data"][0]["pledged"] == 1
    assert counted_times(harness) == 1
    earlier = f"{path}?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
    assert (await harness.get(earlier, **bearer(ADMIN)))[2]["data"][0]["pledged"] == 2


class NoVisits:
    """No views."""

    async def of(self, *period: Any) -> Any:
        return {}


class SlowService:
    """Counts nothing, once its `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = self.running = self.most = 0

    async def request(self, method: str, path: str, **other: Any) -> ServiceResponse:
        self.asked += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return ServiceResponse(200, {}, b'{"complete":true,"data":[]}')


def periods(count: int) -> list[Period]:
    start = datetime(2026, 1, 7, tzinfo=UTC)
    return [Period("drv_1", start, start + timedelta(hours=n + 1)) for n in range(count)]


async def test_count_is_made_again_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    service, now, (period,) = SlowService(), [100.0], periods(1)
    service.gate.set()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    counts = FunnelCounts(NoVisits(), {"pledges": service, "leaderboard": service}, "secret")
    for after_s, asked in ((0.0, 2), (KEPT_S - 0.1, 2), (0.2, 4)):
        now[0] += after_s
        await counts.of(period)
        assert service.asked == asked


async def test_counts_are_made_one_at_a_time_and_few_wait() -> None:
    service, asked = SlowService(), periods(MAX_WAITING + 2)
    counts = FunnelCounts(NoVisits(), {"pledges": service, "leaderboard": service}, "secret")
    waiting = [asyncio.create_task(counts.of(one)) for one in asked[:-1]]
    await until(lambda: service.running == 2)
    with pytest.raises(Overloaded):
        await counts.of(asked[-1])
    service.gate.set()
    assert await asyncio.gather(*waiting) == [{}] * (MAX_WAITING + 1)
    assert service.most == 2  # the two services of one count
    assert not counts._running


async def test_count_that_fails_is_not_kept(harness: Harness) -> None:
    know(harness)
    answer(harness, [("x", None, 1)], [])
    answers = harness.pledges.answers
    found, answers["POST /internal/funnel"] = answers["POST /internal/funnel"], (503, {})
    path = "/v1/drives/winter/funnel"
    assert (await harness.get(path, **bearer(ADMIN)))[0] == 503
    answers["POST /internal/funnel"] = found
    assert (await harness.get(path, **bearer(ADMIN)))[0] == 200


async def test_counts_are_stored_when_the_gateway_stops(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness:
        know(harness)
        assert await report(harness) == 204
    database = Database(f"sqlite:///{tmp_path / 'gateway.db'}", MESSAGING_TABLES)
    visits = Visits(database, FrozenClock())

    async def stored() -> bool:
        now = datetime.now(UTC)
        return await visits.of(DRIVE, now - timedelta(days=1), now + timedelta(days=1)) == {"": (1, 0)}

    await until(stored)
    await database.close()
