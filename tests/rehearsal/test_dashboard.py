"""The dashboard's queries at a real Prometheus: timed, how late the screen is, failures counted."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from rehearsal.dashboard import Dashboard, DashboardReader, read
from rehearsal.rehearse import conclusions, where_to_look
from tests.observability.test_prometheus import prometheus


async def metrics(_request: web.Request) -> web.Response:
    return web.Response(text="ataa_live_clients 7\n")


def test_all_panels_of_the_committed_dashboard_are_loaded() -> None:
    shown = read()
    assert shown.uid == "ataa-surge-overview"
    assert shown.refresh_s == 10
    assert len(shown.queries) > 25
    assert all(panel and query for panel, query in shown.queries)


async def test_refresh_measures_the_load_and_how_far_behind_the_screen_is(tmp_path: Path) -> None:
    application = web.Application()
    application.router.add_get("/metrics", metrics)
    async with (
        TestServer(application) as scraped,
        prometheus(tmp_path, scraped.port or 0) as started,
        aiohttp.ClientSession() as session,
    ):
        reader = DashboardReader(session, started.url, read())
        await reader.refresh()
        await reader.refresh()
        wrong = Dashboard("x", "x", 10, [("Broken", "sum(")])
        broken = DashboardReader(session, started.url, wrong)
        await broken.refresh()
    found = reader.times.report()
    assert (found["refreshes"], found["failed"]) == (2, 0), reader.times.reason
    assert 0 < found["load_ms"]["p50"] <= found["load_ms"]["max"]
    assert found["behind_ms"]["max"] >= found["load_ms"]["p50"]  # and the newest sample's age
    assert len(found["slowest_panels_ms"]) == 3
    assert broken.times.report()["failed"] == 1
    assert broken.times.reason.startswith("sum(: ")


async def test_prometheus_that_does_not_answer_is_reported() -> None:
    async with aiohttp.ClientSession() as session:
        reader = DashboardReader(session, "http://127.0.0.1:9", read())
        await reader.refresh()
    figures = reader.times.report()
    assert (figures["refreshes"], figures["failed"]) == (0, 1)
    (line,) = conclusions(figures, reader.times.reason, late_s=0.1)
    assert line.startswith("1 refreshes failed: Cannot connect to host 127.0.0.1:9")


def test_late_donations_are_reported_because_the_load_was_smaller() -> None:
    figures = {"refreshes": 2, "failed": 0, "load_ms": {"p50": 120.0, "max": 340.0}}
    lines = conclusions({**figures, "behind_ms": {"p50": 2_120.0, "max": 5_340.0}}, "", late_s=8.2)
    assert lines[0] == "Dashboard: all panels answered in 120 ms (longest 340 ms), 2 refreshes."
    assert lines[1].startswith("The screen was 2.1 s behind the system (longest 5.3 s)")
    assert lines[2].startswith("Donations started up to 8.2 s late")


def test_link_shows_the_rehearsal_from_a_minute_before_its_start() -> None:
    lines = where_to_look(read(), "http://grafana:3000", "http://prometheus:9090", started_at=1_800_000_000)
    assert "http://grafana:3000/d/ataa-surge-overview?from=1799999940000&to=now&refresh=10s" in lines[1]
