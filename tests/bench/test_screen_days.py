"""The days of `python -m bench screens` in small: an overlay that is open for long does not grow."""

from __future__ import annotations

from playwright.async_api import async_playwright

from bench.screen_days import hour_of, open_screen, pass_hours, slope
from bench.screen_server import Screen, serving_overlay
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path

HOURS, GIFTS = 2, 500


async def test_overlay_holds_no_more_after_six_hours_than_after_two() -> None:
    screen = Screen()
    async with serving_overlay(screen) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = await browser.new_page(viewport={"width": 1280, "height": 720})
        session = await open_screen(page, screen, address)
        first, *_, last = [await pass_hours(page, session, screen, HOURS, GIFTS) for _ in range(3)]
        await browser.close()
    assert last.nodes <= first.nodes * 1.5
    assert last.listeners <= first.listeners * 1.2
    assert last.heap_mb <= first.heap_mb + 0.3


def test_hour_passes_in_full_and_no_time_is_without_totals() -> None:
    screen = Screen()
    text = b"".join(hour_of(screen, 200)).decode()
    ticks = [int(part.split("data: ")[1]) for part in text.split("\n\n") if part.startswith("event: tick")]
    assert sum(ticks) == 200 * (3_600_000 // 200)
    assert max(ticks) <= 8_000
    assert text.count("event: donation") == 200
    assert screen.sequence == 201


def test_slope_is_that_of_a_line_through_the_values() -> None:
    assert slope([1.0, 3.0, 5.0, 7.0]) == 2.0
    assert slope([4.0, 4.0, 4.0]) == 0.0
    assert slope([1.0]) == 0.0
