"""Overlays as they run in OBS and browsers: many in one profile, hidden, reloaded, restyled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Error, Page, Request, async_playwright, expect

from tests.gateway.harness import Harness as GatewayHarness
from tests.gateway.harness import ReceivedRequest, drive, gateway
from tests.gateway.pages_harness import SEQUENCE, Harness, donation_row, drive_totals, serving_pages, usd
from tests.gateway.test_pages_in_browser import FLAGS, ONE_RENDERER, chromium_path, window_of
from tests.gateway.test_stream import hub_of, serve_log
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=PATIENCE_S * 1_000)

SHARED = ""
WITHOUT_WORKER = "delete window.SharedWorker"
NETWORK_HOST = "ataa.test"
"""Plain http to another host is not a secure context, so browsers have no Web Locks there."""
WITHOUT_ANY = "delete window.SharedWorker; delete window.BroadcastChannel"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        names = f"--host-resolver-rules=MAP {NETWORK_HOST} 127.0.0.1"
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=[*FLAGS, names])
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def profile(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A browser profile of its own, like the one that all browser sources of an OBS profile share."""
    context = await chromium.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_S * 1_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_window() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        flags = [*FLAGS, *ONE_RENDERER]
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=flags)
        window = await window_of(launched)
        window.set_default_timeout(PATIENCE_S * 1_000)
        yield window
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def window(shared_window: BrowserContext) -> AsyncIterator[BrowserContext]:
    """A window shared by tests of single pages: each test has its own server, and so an origin of its own."""
    yield shared_window
    for page in shared_window.pages[1:]:
        await page.close()


@pytest_asyncio.fixture(loop_scope="module")
async def system(tmp_path: Path) -> AsyncIterator[GatewayHarness]:
    """A real gateway whose drive has one donation, and whose figures are complete up to now."""
    async with gateway(tmp_path) as served:
        serve_log(served, [])
        await served.snapshot(1, "10.00")
        beating = asyncio.create_task(send_heartbeats(served))
        yield served
        beating.cancel()


async def send_heartbeats(system: GatewayHarness) -> None:
    while True:
        await system.heartbeat()
        await asyncio.sleep(1)


@pytest_asyncio.fixture(loop_scope="module")
async def harness() -> AsyncIterator[Harness]:
    async with serving_pages(Harness()) as served:
        yield served


async def overlays(
    system: GatewayHarness, profile: BrowserContext, count: int, host: str = "127.0.0.1"
) -> list[Page]:
    pages = [await profile.new_page() for _ in range(count)]
    for page in pages:
        await page.goto(f"http://{host}:{system.port}/overlay/winter?lang=en", wait_until="commit")
    return pages


async def all_show(pages: list[Page], value: str) -> None:
    for page in pages:
        await expect(page.locator(".raised")).to_have_attribute("data-value", value)
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")


# --- many pages of one profile ---


@pytest.mark.parametrize(("missing", "streams"), [(SHARED, 1), (WITHOUT_WORKER, 1), (WITHOUT_ANY, 0)])
async def test_eight_overlays_of_one_profile_share_one_stream(
    system: GatewayHarness, profile: BrowserContext, missing: str, streams: int
) -> None:
    await profile.add_init_script(missing)
    pages = await overlays(system, profile, 8)
    await all_show(pages, "10.00")
    await until(lambda: hub_of(system).fan_out.clients == streams)
    await system.snapshot(2, "35.00")
    await all_show(pages, "35.00")
    assert hub_of(system).fan_out.clients == streams
    donor = await profile.new_page()
    await donor.goto(f"{system.url}/donate/winter?lang=en")
    await expect(donor.locator("#give")).to_be_enabled()


@pytest.mark.parametrize(("missing", "streams"), [(SHARED, 1), (WITHOUT_WORKER, 0)])
async def test_without_web_locks_the_worker_alone_reads_the_stream(
    system: GatewayHarness, profile: BrowserContext, missing: str, streams: int
) -> None:
    await profile.add_init_script(missing)
    pages = await overlays(system, profile, 8, NETWORK_HOST)
    assert not await pages[0].evaluate("'locks' in navigator")
    await all_show(pages, "10.00")
    await until(lambda: hub_of(system).fan_out.clients == streams)
    await system.snapshot(2, "35.00")
    await all_show(pages, "35.00")
    assert hub_of(system).fan_out.clients == streams


async def test_overlays_of_many_drives_leave_connections_free(
    system: GatewayHarness, profile: BrowserContext
) -> None:
    known = {f"d{n}": drive(f"drv_{n:026d}", f"d{n}") for n in range(7)}

    def found(received: ReceivedRequest) -> tuple[int, Any]:
        refs = json.loads(received.body)["refs"]
        return 200, {"data": {ref: known[ref] for ref in refs if ref in known}}

    system.pledges.answers["POST /internal/drives"] = found
    for one in known.values():
        system.pledges.answers[f"GET /v1/drives/{one['id']}/creators"] = (200, {"data": [], "next": None})
        system.leaderboard.answers[f"GET /v1/drives/{one['id']}/events"] = (200, {"data": [], "next": None})
        await system.snapshot(1, "10.00", drive_id=one["id"], slug=one["slug"])
    pages = [await profile.new_page() for _ in known]
    for page, slug in zip(pages, known, strict=True):
        await page.goto(f"{system.url}/overlay/{slug}?lang=en", wait_until="commit")
    await all_show(pages, "10.00")
    await until(lambda: hub_of(system).fan_out.clients == 3)
    for one in known.values():
        await system.snapshot(2, "35.00", drive_id=one["id"], slug=one["slug"])
    await all_show(pages, "35.00")
    assert hub_of(system).fan_out.clients == 3


async def test_stream_ends_when_no_page_shows_its_drive(
    system: GatewayHarness, profile: BrowserContext
) -> None:
    other = "drv_" + "0" * 26
    await system.snapshot(1, "10.00", drive_id=other, slug="spring")
    system.pledges.answers[f"GET /v1/drives/{other}/creators"] = (200, {"data": [], "next": None})
    system.leaderboard.answers[f"GET /v1/drives/{other}/events"] = (200, {"data": [], "next": None})
    winter, spring = await overlays(system, profile, 1), await profile.new_page()
    await spring.goto(f"{system.url}/overlay/spring?lang=en")
    await all_show([*winter, spring], "10.00")
    await until(lambda: hub_of(system).fan_out.clients == 2)
    await spring.close()
    await until(lambda: hub_of(system).fan_out.clients == 1)
    await system.snapshot(2, "35.00")
    await all_show(winter, "35.00")


@pytest.mark.parametrize("end", ["closed", "frozen"])
async def test_another_page_takes_over_when_the_hub_page_closes(
    system: GatewayHarness, profile: BrowserContext, end: str
) -> None:
    await profile.add_init_script(WITHOUT_WORKER)
    pages = await overlays(system, profile, 1)
    await all_show(pages, "10.00")  # so that the first page is the one that reads it
    pages += await overlays(system, profile, 2)
    await all_show(pages, "10.00")
    first = pages.pop(0)
    if end == "closed":
        await first.close()
    else:
        session = await profile.new_cdp_session(first)
        await session.send("Page.setWebLifecycleState", {"state": "frozen"})
    await system.snapshot(2, "35.00")
    await all_show(pages, "35.00")
    await until(lambda: hub_of(system).fan_out.clients >= 1)
    await system.log(3)
    await all_announce(pages)


async def test_hidden_page_gives_the_stream_to_a_visible_page(
    system: GatewayHarness, profile: BrowserContext
) -> None:
    await profile.add_init_script(WITHOUT_WORKER)
    pages = await overlays(system, profile, 1)
    await all_show(pages, "10.00")
    pages += await overlays(system, profile, 1)
    await all_show(pages, "10.00")
    await hide(pages[0], True)
    await until_it_reads_the_stream(pages[1])
    await system.snapshot(2, "35.00")
    await all_show(pages[1:], "35.00")


@pytest.mark.parametrize("worker", ["setTimeout(() => this.onerror(), 50)", "", "throw new Error()"])
async def test_page_reads_the_stream_when_the_worker_fails_or_does_not_answer(
    system: GatewayHarness, profile: BrowserContext, worker: str
) -> None:
    await profile.add_init_script(f"window.SharedWorker = class {{ constructor() {{ {worker} }} }}")
    pages = await overlays(system, profile, 2)
    await all_show(pages, "10.00")
    await until(lambda: hub_of(system).fan_out.clients == 1)
    await system.log(2)
    await all_announce(pages)


# --- every donation once ---


async def until_it_reads_the_stream(page: Page) -> None:
    """Waits until this page holds the lock of the hub, and no other does."""
    held = """async () => {
        const ours = async () => (await navigator.locks.query()).held;
        const name = String(Math.random());
        const own = await navigator.locks.request(name, async () =>
          (await ours()).find((lock) => lock.name === name).clientId);
        const hubs = (await ours()).filter((lock) => lock.name.startsWith("ataa-feed"));
        return hubs.length === 1 && hubs[0].clientId === own }"""
    await until(lambda: page.evaluate(held))


async def hide(page: Page, hidden: bool) -> None:
    """Hide the page, as OBS does with a source of a hidden scene."""
    await page.evaluate(
        """(hidden) => {
        for (const [name, value] of [["hidden", hidden], ["visibilityState", hidden ? "hidden" : "visible"]])
          Object.defineProperty(document, name, { configurable: true, value });
        document.dispatchEvent(new Event("visibilitychange")) }""",
        hidden,
    )


async def collect_cards(page: Page) -> None:
    """Keep the text of every card the page shows, from now on and after each reload, in `window.shown`."""
    await page.add_init_script(
        """window.shown = []; document.addEventListener("DOMContentLoaded", () =>
        new MutationObserver((changes) => { for (const card of changes.flatMap((one) => [...one.addedNodes]))
          window.shown.push(card.querySelector(".name")?.textContent ?? card.textContent)
        }).observe(document.querySelector(".alerts"), { childList: true }))"""
    )


async def cards(page: Page) -> list[str]:
    found: list[str] = await page.evaluate("window.shown")
    return found


def missed(n: int) -> list[dict[str, Any]]:
    """The first `n` donations after the harness's first totals."""
    return [donation_row(number) for number in range(1, n + 1)]


def after(donations: list[dict[str, Any]], named: int = 20) -> dict[str, Any]:
    """The totals once these donations are counted, with the newest `named` of them in `recent`."""
    return drive_totals(sequence=donations[-1]["sequence"], recent=donations[::-1][:named])


async def test_donations_missed_by_a_broken_stream_are_all_announced(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    harness.stream_status = 503
    harness.end_streams()
    donations = missed(240)
    harness.rows, harness.totals = donations, after(donations, named=2)
    await expect(page.locator(".card.missed")).to_have_text("+238 gifts while away")
    assert sorted(await cards(page)) == ["+238 gifts while away", "Donor 239", "Donor 240"]
    harness.stream_status = 200
    await until(lambda: harness.stream_queues)
    assert harness.streams_from[-1] == str(SEQUENCE + 240)
    harness.push("donation", donation_row(240))
    harness.push("donation", donation_row(241))
    await expect(page.locator(".card .name", has_text="Donor 241")).to_have_count(1)
    assert len(await cards(page)) == 4


async def test_gap_in_the_stream_is_read_from_the_log(harness: Harness, window: BrowserContext) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    harness.rows = missed(5)
    harness.push("gap", {"after": SEQUENCE, "events": "…"})
    harness.push("donation", donation_row(5))
    await expect(page.locator(".card.missed")).to_have_text("+4 gifts while away")
    assert await cards(page) == ["Donor 5", "+4 gifts while away"]


async def test_a_stream_that_ends_with_a_gap_is_opened_as_a_new_one(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    harness.resumed_by_gap = True
    harness.rows = missed(5)
    harness.totals = after(harness.rows, named=1)
    harness.end_streams()
    await until(lambda: "" in harness.streams_from[1:])
    assert str(SEQUENCE) in harness.streams_from
    await expect(page.locator(".card.missed")).to_have_text("+4 gifts while away")
    harness.push("donation", donation_row(6))
    await expect(page.locator(".card .name", has_text="Donor 6")).to_have_count(1)
    assert sorted(await cards(page)) == ["+4 gifts while away", "Donor 5", "Donor 6"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_reload_announces_missed_donations_and_none_twice(
    harness: Harness, window: BrowserContext, streamed: bool
) -> None:
    page = await window.new_page()
    await collect_cards(page)
    harness.stream_status = 200 if streamed else 503
    harness.rows = missed(1)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await raised(page, "4560123.45")
    harness.totals = after(harness.rows)
    harness.push("donation", donation_row(1))
    await until(lambda: announced(page, ["Donor 1"]))
    await page.goto("about:blank")
    harness.rows = missed(30)
    harness.totals = after(harness.rows, named=3)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: announced(page, ["+26 gifts while away", "Donor 28", "Donor 29", "Donor 30"]))
    await page.reload()
    await raised(page, "4560123.45")
    harness.rows = missed(31)
    harness.totals = after(harness.rows)
    harness.push("donation", donation_row(31))
    await until(lambda: announced(page, ["Donor 31"]))


async def test_queued_donations_are_counted_after_a_reload(harness: Harness, window: BrowserContext) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    for donation in missed(40):
        harness.push("donation", donation)
    await expect(page.locator(".card.burst")).to_be_visible()
    harness.rows = missed(60)  # the last 20 wait for the next number
    for donation in harness.rows[40:]:
        harness.push("donation", donation)
    await until(lambda: page.evaluate(STORED, SEQUENCE + 60))
    shown = await page.evaluate(
        """[...document.querySelectorAll(".card")].reduce((sum, card) => sum
        + (card.classList.contains("burst") ? parseInt(card.textContent.slice(1)) : 1), 0)"""
    )
    assert 9 <= shown <= 40
    await page.goto("about:blank")
    harness.totals = after(harness.rows)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await expect(page.locator(".card.missed")).to_have_text(f"+{60 - shown} gifts while away")
    assert len(await cards(page)) == 1


async def test_new_log_is_not_treated_as_a_gap(harness: Harness, window: BrowserContext) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    harness.push("totals", drive_totals(epoch=2, sequence=5, raised=usd("4000000.00")))
    harness.push("gap", {"after": 0, "events": "…"})
    harness.push("donation", donation_row(6 - SEQUENCE, name="First of the new log"))
    await until(lambda: announced(page, ["First of the new log"]))


async def test_another_drive_of_the_same_slug_starts_a_new_log(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    harness.push("totals", drive_totals(drive="drv_other", sequence=1, raised=usd("10.00")))
    await raised(page, "10.00")
    harness.push("donation", donation_row(2 - SEQUENCE, name="First of the new drive"))
    await until(lambda: announced(page, ["First of the new drive"]))


async def test_visible_again_source_shows_new_donations_first_then_the_number_missed(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await collect_cards(page)
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await until(lambda: harness.stream_queues)
    await hide(page, True)
    for number in range(1, 413):
        harness.push("donation", donation_row(number))
    harness.push("totals", drive_totals(sequence=SEQUENCE + 412, raised=usd("4570423.45")))
    await until(lambda: page.evaluate(STORED, SEQUENCE + 412))
    assert await cards(page) == []
    await hide(page, False)
    harness.push("donation", donation_row(413, name="New"))
    harness.push("donation", donation_row(414, name="Newest"))
    await until(lambda: announced(page, ["New", "Newest", "+412 gifts while away"]))


async def test_number_of_missed_donations_follows_eight_new_ones(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    order = await page.evaluate(
        """async () => {
        const address = document.querySelector('link[href$="alert_queue.js"]').href;
        const { AlertQueue } = await import(address);
        const queue = new AlertQueue(10), shown = [];
        const donation = (n) => ({ id: n, amount: { currency: "USD", value: n + ".00" } });
        const offer = (from, to) => { for (let n = from; n <= to; n++) queue.offer(donation(n), 0) };
        const next = (counting) => { const card = queue.next(counting, 1_000);
          shown.push(card && (card.id ?? Object.keys(card)[0] + Object.values(card)[0])) };
        queue.miss(400);
        offer(1, 8);
        next(true);
        queue.miss(12);
        for (let n = 0; n < 7; n++) next(false);
        offer(9, 10);
        for (let n = 0; n < 5; n++) next(false);
        return shown }"""
    )
    assert order == [1, 2, 3, 4, 5, 6, 7, 8, "missed412", 9, 10, None, None]


async def test_crowd_is_announced_as_one_number_with_the_largest_by_name(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    found = await page.evaluate(
        """async () => {
        const address = document.querySelector('link[href$="alert_queue.js"]').href;
        const { AlertQueue } = await import(address);
        const queue = new AlertQueue(10), shown = [];
        const offer = (from, to, now) => { for (let n = from; n <= to; n++)
          queue.offer({ id: n, amount: { currency: "USD", value: n + ".00" } }, now) };
        const next = (now) => { const card = queue.next(false, now);
          const of = ({ burst, seconds, top }) => [burst, seconds, top.map((one) => one.id)];
          shown.push(card?.burst ? of(card) : card?.id ?? null) };
        offer(600, 604, 0); offer(1, 20, 4_000);
        for (let n = 0; n < 4; n++) next(4_500); // three large ones, then the others
        offer(21, 23, 5_000); offer(900, 900, 5_000);
        next(5_100); next(9_000); // only a large one while the number is fresh
        offer(24, 40, 9_000); next(14_500);
        offer(41, 42, 30_000); next(30_000); next(30_000); next(30_000);
        return shown }"""
    )
    assert found == [
        600, 601, 602, [22, 5, [604, 603, 20]],
        900, None, [20, 10, [40, 39, 38]],
        41, 42, None,
    ]  # fmt: skip


STORED = (
    "(upto) => Object.values({...localStorage}).some((kept) => JSON.parse(kept).position?.sequence === upto)"
)
"""Whether the page has stored this position in the log."""


async def announced(page: Page, wanted: list[str]) -> bool:
    found = await cards(page)
    assert not set(found) - set(wanted), found
    assert len(found) == len(set(found)), found
    return sorted(found) == sorted(wanted)


async def all_announce(pages: list[Page]) -> None:
    """Each page announces one donation, once."""
    for page in pages:
        await expect(page.locator(".card .name")).to_have_text("أمل")
        await expect(page.locator(".card")).to_have_count(1)


# --- OBS's Custom CSS ---

CUSTOM = "body { background-color: rgb(1, 2, 3) } @media (width <= 9000px) { .bar { opacity: 0.5 } }"
AS_TEXT = "style.appendChild(document.createTextNode(css))"
AS_HTML = "style.innerHTML = css"


@pytest.mark.parametrize("write", [AS_TEXT, AS_HTML])
async def test_custom_css_of_obs_applies_to_an_overlay(
    harness: Harness, window: BrowserContext, write: str
) -> None:
    """The two ways of obs-browser, newer and older (browser-client.cpp, OnLoadEnd)."""
    page = await window.new_page()
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    await page.evaluate(
        f"(css) => {{ const style = document.createElement('style'); {write};"
        " document.head.appendChild(style) }",
        CUSTOM,
    )
    style = "[[document.body, 'backgroundColor'], [document.querySelector('.bar'), 'opacity']]"
    found = await page.evaluate(f"{style}.map(([one, name]) => getComputedStyle(one)[name])")
    assert found == ["rgb(1, 2, 3)", "0.5"]


async def test_overlay_refuses_markup_and_scripts_from_strings(
    harness: Harness, window: BrowserContext
) -> None:
    page = await window.new_page()
    await page.goto(f"{harness.base}/overlay/winter?lang=en")
    for sink in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.innerHTML = 'a <img src=x onerror=1>'",
        "document.createElement('script').src = '/x.js'",
        "new SharedWorker('/x.js')",
    ):
        with pytest.raises(Error, match="Trusted"):
            await page.evaluate(f"() => {{ {sink} }}")


# --- the bar ---


@pytest.mark.parametrize(
    ("value", "percent", "lang", "reached"),
    [
        ("9996.00", "99.9%", "en", False),
        ("9999.99", "99.9%", "en", False),
        ("10000.00", "100%", "en", True),
        ("10000.01", "100%", "en", True),
        ("11050.00", "110.5%", "en", True),
        ("-10.00", "0%", "en", False),
        ("0.01", "0%", "en", False),
        ("9996.00", "٩٩٫٩٪\u061c", "ar&digits=arab", False),
    ],
)
async def test_bar_never_shows_a_goal_as_reached_too_early(
    harness: Harness, window: BrowserContext, value: str, percent: str, lang: str, reached: bool
) -> None:
    harness.totals = drive_totals(
        raised=usd(value), goal=usd("10000.00"), percent=round(float(value) / 100, 1)
    )
    page = await window.new_page()
    await page.goto(f"{harness.base}/overlay/winter?lang={lang}")
    await raised(page, value)
    await expect(page.locator(".percent")).to_have_text(percent)
    assert (
        await page.locator(".bar.reached").count() == await page.locator(".goal.reached").count() == reached
    )
    fill = await page.locator(".fill").bounding_box()
    track = await page.locator(".track").bounding_box()
    assert fill is not None
    assert track is not None
    uncovered = abs(fill["x"] - track["x"]) / track["width"]
    assert uncovered == pytest.approx(1 - max(0.0, min(1.0, float(value) / 10_000)), abs=1e-3)


@pytest.mark.parametrize(("value", "filled"), [("9996.00", 99), ("10000.00", 100), ("-10.00", 0)])
async def test_donate_page_never_shows_a_goal_as_reached_too_early(
    harness: Harness, window: BrowserContext, value: str, filled: float
) -> None:
    percent = round(float(value) / 100)
    harness.totals = drive_totals(raised=usd(value), goal=usd("10000.00"), percent=percent)
    page = await window.new_page()
    await page.goto(f"{harness.base}/donate/winter?lang=en")
    drawn = "document.querySelector('#progress').value"
    await until(lambda: page.evaluate(f"Math.abs({drawn} - {filled}) < 0.001"))


async def raised(page: Page, value: str) -> None:
    await expect(page.locator(".raised")).to_have_attribute("data-value", value)


@pytest.mark.parametrize("lang", ["ar", "en"])
@pytest.mark.parametrize(("width", "height"), [(320, 640), (1920, 1080), (1080, 1920)])
async def test_no_part_of_an_overlay_overflows_its_source(
    harness: Harness, window: BrowserContext, lang: str, width: int, height: int
) -> None:
    donation = donation_row(1, name="N" * 40, message="M" * 120)
    leader = {"rank": 1, "creator": "crt_1", "slug": "x", "name": "L" * 80, "raised": usd("9999999.99")}
    harness.totals = drive_totals(
        title="W" * 120, raised=usd("99999999.99"), leaders=[leader], recent=[donation]
    )
    page = await window.new_page()
    await page.set_viewport_size({"width": width, "height": height})
    await page.goto(f"{harness.base}/overlay/winter?lang={lang}")
    await raised(page, "99999999.99")
    await until(lambda: harness.stream_queues)
    harness.push("donation", donation)
    await expect(page.locator(".card")).to_be_visible()
    for part in (".leaders", ".card", ".bar", ".figures > *", ".bar footer > *", ".goal", ".ticker"):
        for place in await page.locator(part).all():
            box = await place.bounding_box()
            assert box is not None
            assert box["x"] >= 0, part
            assert box["x"] + box["width"] <= width, part


# --- every page ---


async def test_no_page_has_a_console_error_or_a_failed_request(
    system: GatewayHarness, chromium: Browser
) -> None:
    troubles: list[str] = []
    opened = ("/", "/docs", "/events", "/overlay/winter", "/donate/winter", "/donate/winter/thanks", "/livez")
    for path in (*opened, "/overlay/winter/setup", "/v1/drives/winter/totals"):
        context = await chromium.new_context()
        page = await context.new_page()

        def note(text: str, path: str = path) -> None:
            troubles.append(f"{path}: {text}")

        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda entry: note(entry.text) if entry.type in ("error", "warning") else None)
        page.on("requestfailed", lambda request: note(_failure(request)))
        page.on(
            "response", lambda reply: note(f"{reply.status} {reply.url}") if reply.status >= 400 else None
        )
        await page.goto(f"{system.url}{path}", wait_until="load")
        await page.wait_for_timeout(300)
        # Headless Chromium does not request the icon, so the test requests it.
        icon = await page.evaluate("document.querySelector('link[rel~=icon]')?.href ?? '/favicon.ico'")
        assert (await context.request.get(f"{system.url}{icon.removeprefix(system.url)}")).ok, path
        await context.close()
    assert troubles == []


def _failure(request: Request) -> str:
    return f"{request.url} {request.failure}"
