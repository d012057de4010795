"""The overlay and its setup page at every size, in both languages, and with hostile texts in every field.

With ATAA_SCREENSHOTS=FOLDER each look is kept as a picture.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests.gateway.pages_harness import SEQUENCE, Harness, donation_row, drive_totals, serving_pages, usd
from tests.gateway.screens import SERIOUS, axe_source, faults
from tests.gateway.test_pages_in_browser import FLAGS, ONE_RENDERER, chromium_path, raised, tab, window_of
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = {
    "en": ("Let's make their winter warmer", "Maria Ángeles", "Layla", "May they be warm tonight.", "Acme"),
    "ar": ("لنجعل شتاءهم أدفأ", "أم عبد الرحمن", "ليلى", "دفّأ الله قلوبهم وبيوتهم.", "مؤسسة الخير"),
    "long": ("W" * 90, "ﷺ" * 40, "👩🏽‍❤️‍💋‍👨🏿" * 20, "كلمة طويلة " * 20, "مؤسسة" * 20),
}
"""A drive, a donor, a creator, a message and a sponsor."""
SIZES = [(320, 640), (768, 1024), (1080, 1920), (1920, 1080), (1280, 720), (640, 360)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        flags = [*FLAGS, *ONE_RENDERER]
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=flags)
        yield await window_of(launched)
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def harness() -> AsyncIterator[Harness]:
    async with serving_pages(Harness()) as served:
        yield served


def full(texts: Literal["en", "ar", "long"]) -> dict[str, Any]:
    """Totals with every part in use, and figures as long as they get."""
    title, donor, creator, _, sponsor = NAMES[texts]
    leaders = [
        {"rank": n, "creator": f"crt_{n}", "slug": "x", "name": creator, "raised": usd(f"{9 - n}123456.78")}
        for n in range(1, 9)
    ]
    stones = [
        {"title": f"{n} {title}", "amount": usd(f"{n}000000.00"), "reached_at": None} for n in range(1, 11)
    ]
    pool = {"sponsor": sponsor, "cap": usd("500000.00"), "used": usd("120000.50"), "ratio": "1.00"}
    pools = [{"id": f"mch_{n}", **pool} for n in range(3)]
    recent = [donation_row(-n, name=donor, amount=usd("12345.67")) for n in range(12)]
    return drive_totals(
        title=title,
        raised=usd("4560123.45"),
        leaders=leaders,
        milestones=stones,
        matching=pools,
        recent=recent,
    )


DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
BROKEN = """() => {
  const found = [];
  const name = (one) => `${one.tagName}.${one.className} ${one.textContent.slice(0, 30)}`;
  const shown = (one) => { const box = one.getBoundingClientRect();
    return one.offsetParent !== null && box.width > 0 && box.height > 0 && one.checkVisibility() };
  const clips = (one) => getComputedStyle(one).overflow !== "visible";
  /** How much of an element's height and width its clipping ancestors and the source leave. */
  const left = (one) => {
    const box = one.getBoundingClientRect();
    let [top, right, bottom, start] = [Math.max(box.top, 0), Math.min(box.right, innerWidth),
      Math.min(box.bottom, innerHeight), Math.max(box.left, 0)];
    for (let around = one.parentElement; around; around = around.parentElement) {
      if (!clips(around) || around.matches(".window, .window *")) continue;
      const edge = around.getBoundingClientRect();
      [top, right] = [Math.max(top, edge.top), Math.min(right, edge.right)];
      [bottom, start] = [Math.min(bottom, edge.bottom), Math.max(start, edge.left)];
    }
    return [Math.max(0, bottom - top) / box.height, Math.max(0, right - start) / box.width];
  };
  const panels = [...document.querySelectorAll(".panel, .card:not(.leaving)")].filter(shown);
  const whole = [...panels, ...[...document.querySelectorAll(
    ".leader, .milestones li, .pool, .bar header, .figures > *, .bar footer > *, .goal > *, .impact, h2")]
    .filter(shown)];
  for (const one of whole) {
    const [tall, wide] = left(one);
    const away = tall === 0 || wide === 0; // as a whole, which looks as if it were not there
    if (!away && (tall < 0.97 || wide < 0.97)) found.push(["cut", name(one), tall, wide]);
  }
  const visible = panels.filter((one) => left(one).every((share) => share > 0));
  visible.forEach((one, i) => visible.slice(i + 1).forEach((other) => {
    const [a, b] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
      found.push(["overlap", name(one), name(other)]) }));
  for (const part of [".bar", ".ticker", ".card"]) {
    const there = [...document.querySelectorAll(part)].some((one) => left(one)[0] > 0.97);
    if (!there) found.push(["missing", part]);
  }
  return found;
}"""


@pytest.mark.parametrize(("lang", "texts"), [("ar", "ar"), ("en", "en"), ("ar", "long"), ("en", "long")])
async def test_every_part_is_whole_at_every_size(
    browser: BrowserContext, harness: Harness, lang: str, texts: Literal["en", "ar", "long"]
) -> None:
    _, donor, _, message, _ = NAMES[texts]
    kits = {"label": {"en": "winter kits", "ar": "حقيبة شتوية"}, "cost": usd("30.00")}
    harness.totals, harness.drive = full(texts), {"impact": [kits]}
    found = []
    async with tab(browser) as page:
        await page.set_viewport_size({"width": 1920, "height": 1080})
        await page.goto(
            f"{harness.base}/overlay/winter?lang={lang}&digits={'arab' if lang == 'ar' else 'latn'}"
        )
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        donation = donation_row(1, name=donor, message=message, creator="crt_1", amount=usd("99999.99"))
        harness.push("donation", donation)
        for width, height in SIZES:
            await expect(page.locator(".card")).to_have_count(1)
            await page.keyboard.press("s")
            await expect(page.locator(".card")).to_have_count(0)
            await page.set_viewport_size({"width": width, "height": height})
            await page.keyboard.press("r")
            await expect(page.locator(".card")).to_have_count(1)
            await page.evaluate(
                "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
            )
            found += [(width, height, *one) for one in await page.evaluate(BROKEN)]
            await keep(page, f"overlay-{texts}-{lang}-{width}x{height}")
    assert found == []


async def keep(page: Page, name: str) -> None:
    """A picture, on the ground of the setup page's preview."""
    if folder := os.environ.get("ATAA_SCREENSHOTS"):
        ground = "linear-gradient(160deg, #31506b, #7a5a48 60%, #1d2a33)"
        await page.evaluate(f"document.documentElement.style.background = '{ground}'")
        await page.screenshot(path=Path(folder) / f"{name}.png")
        await page.evaluate("document.documentElement.style.background = ''")


@pytest.mark.parametrize("lang", ["ar", "en"])
async def test_axe_finds_nothing_serious_in_an_overlay(
    browser: BrowserContext, harness: Harness, lang: str
) -> None:
    harness.totals = full("ar" if lang == "ar" else "en")
    async with tab(browser) as page:
        await page.set_viewport_size({"width": 1920, "height": 1080})
        for theme in ("dark", "light"):
            await page.goto(f"{harness.base}/overlay/winter?lang={lang}&theme={theme}")
            await raised(page, "4560123.45")
            await page.evaluate(axe_source())
            result = await page.evaluate("axe.run({ exclude: ['.window'] })")  # its chips are cut
            assert result["passes"]
            assert [
                (theme, one["id"], one["nodes"][0]["html"][:200])
                for one in result["violations"]
                if one["impact"] in SERIOUS
            ] == []


@pytest.mark.parametrize("lang", ["ar", "en"])
async def test_setup_page_has_no_faults(browser: BrowserContext, harness: Harness, lang: str) -> None:
    harness.totals = full("ar" if lang == "ar" else "en")
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter/setup?lang={lang}")
        await expect(page.frame_locator("iframe").locator(".raised")).to_have_attribute(
            "data-value", "4560123.45"
        )
        assert await page.locator("#file").get_attribute("href") == (
            f"/overlay/winter/file?parts=bar,goal,leaders,alerts,ticker,milestones,matching&lang={lang}"
        )
        assert await faults(page, "setup", lang) == []


# --- hostile texts ---

PAYLOADS = (
    '<img src=x onerror="window.owned=1">',
    "<script>window.owned=1</script>",
    "<svg onload=window.owned=1><a xlink:href=javascript:window.owned=1>x</a></svg>",
    "javascript:window.owned=1",
    "</style></script><style>body{display:none}</style>",
    "{{constructor.constructor('window.owned=1')()}} ${window.owned=1}",
    '"\'><iframe srcdoc="<script>parent.owned=1</script>">',
    "{name} {sponsor} {money} {n} $& $1",
)
USED_TAGS = (
    "html head meta title link script body main section article header footer div h1 h2 p span bdi ol ul li i"
)


def hostile(text: str, n: int, reached: bool = False) -> dict[str, Any]:
    """The n-th totals, with the text in every field that people write."""
    as_of = drive_totals()["as_of"]
    pool = {"id": "m", "sponsor": {"en": text}, "cap": usd("9.00"), "used": usd("1.00"), "ratio": "0.50"}
    return drive_totals(
        sequence=SEQUENCE + n,
        title={"en": text},
        leaders=[{"rank": 1, "creator": "crt_1", "slug": text, "name": text, "raised": usd("5.00")}],
        recent=[donation_row(n, name=text, message=text)],
        matching=[pool],
        milestones=[{"title": text, "amount": usd("5000000.00"), "reached_at": as_of if reached else None}],
    )


async def test_no_hostile_text_becomes_markup_in_any_field(browser: BrowserContext, harness: Harness) -> None:
    harness.drive = {"impact": [{"label": text, "cost": usd("30.00")} for text in PAYLOADS[:1]]}
    harness.totals = hostile("Winter", 0)
    async with tab(browser) as page:
        await page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation',"
            " (event) => window.refused.push(event.violatedDirective))"
        )
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        for n, text in enumerate(PAYLOADS, 1):
            harness.push("totals", hostile(text, n))
            harness.push("donation", donation_row(n, name=text, message=text, creator="crt_1"))
            for place in (
                *(".title", ".leader .name", ".chip .name", ".milestones .what", ".match-who .sponsor"),
                *(".card .name", ".card .message", ".card .with bdi"),
            ):
                await expect(page.locator(place).first).to_have_text(text, use_inner_text=False)
            await page.keyboard.press("s")
            await expect(page.locator(".card")).to_have_count(0)
        last = len(PAYLOADS)
        harness.push("totals", hostile(PAYLOADS[0], last + 1, reached=True))
        for n in range(last + 2, last + 40):
            harness.push("donation", donation_row(n, name=PAYLOADS[n % 2 * 6], amount=usd("499.00")))
        await expect(page.locator(".reached-title")).to_have_text(PAYLOADS[0])
        await expect(page.locator(".burst-line .name").first).to_contain_text("owned=1")
        assert await page.locator(".impact .label").text_content() == PAYLOADS[0]
        tags = await page.evaluate("[...document.querySelectorAll('*')].map((one) => one.localName)")
        assert set(tags) <= set(USED_TAGS.split())
        assert await page.evaluate("window.owned ?? null") is None
        assert await page.evaluate("window.refused") == []
