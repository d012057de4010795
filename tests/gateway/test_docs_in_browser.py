"""The API reference in a real Chromium: Swagger UI under its strict content policy."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import async_playwright, expect

from tests.gateway.harness import gateway
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path


async def test_docs_show_every_operation_without_policy_violations(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = await browser.new_page()
        complaints: list[str] = []
        elsewhere: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda one: None if one.url.startswith((harness.url, "data:")) else elsewhere.append(one.url),
        )
        await page.goto(f"{harness.url}/docs")
        totals = page.locator(".opblock", has_text="/v1/drives/{drive}/totals")
        await totals.click()
        await expect(totals).to_contain_text("Read what a drive has raised")
        assert (complaints, elsewhere) == ([], [])
        await browser.close()


async def test_guide_has_no_scripts_and_fits_a_phone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = await browser.new_page(viewport={"width": 390, "height": 844})
        complaints: list[str] = []
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        await page.goto(f"{harness.url}/docs/guide")
        await expect(page.locator("h1")).to_have_text("API guide")
        assert await page.locator("table").count() > 2
        assert "test:" not in await page.content()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        assert complaints == []
        await browser.close()
