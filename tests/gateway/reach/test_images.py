from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.languages import Voice
from gateway.reach import drawer as drawer_module
from gateway.reach.drawer import MAX_WAITING, Drawer, DrawingFailed
from gateway.reach.measuring import drawable, lines, width
from gateway.reach.picture import picture_svg
from gateway.reach.pictures import FALLBACK, MAX_DRIVES, Pictures
from gateway.reach.public_page import PublicPage
from gateway.reach.qr_codes import MAX_KEPT, QrCodes
from gateway.reach.sources import Source
from tests.gateway.harness import DRIVE, Harness, drive, gateway
from tests.gateway.reach.drive_page import ABOFLAH, HOSTILE, know, show, totals, usd
from tests.waiting import until

PNG = b"\x89PNG\r\n\x1a\n"


def parsed(svg: str | bytes) -> ElementTree.Element:
    """The document; raises where it is not well-formed XML."""
    return ElementTree.fromstring(svg)  # noqa: S314  our own


class FakeDrawer(Drawer):
    """Answers with what it was asked to draw; `gate` holds drawings up, and `fails` refuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def _draw(self, request: Any) -> bytes:
        (text,) = request.values()
        self.drawn.append(text)
        await self.gate.wait()
        if self.fails:
            raise DrawingFailed("as the test wants it")
        return text.encode()


@pytest.fixture
async def shown(harness: Harness) -> Harness:
    know(harness, ABOFLAH)
    await show(harness)

    async def received() -> bool:
        return (await harness.get("/v1/drives/winter/totals"))[2]["sequence"] == 1

    await until(received)
    return harness


async def image(harness: Harness, path: str, **headers: str) -> tuple[int, Any, bytes]:
    async with harness.session.get(path, headers=headers, allow_redirects=False) as reply:
        return reply.status, reply.headers, await reply.read()


# --- routes ---


async def test_picture_is_a_png_of_the_size_that_chats_expect(shown: Harness) -> None:
    status, headers, png = await image(shown, "/d/winter/og.png?lang=ar&v=17")
    assert (status, headers["Content-Type"], png[:8]) == (200, "image/png", PNG)
    assert png != FALLBACK
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (1200, 630)
    assert "max-age=10" in headers["Cache-Control"]
    unchanged, _, _ = await image(shown, "/d/winter/og.png?lang=ar", **{"If-None-Match": headers["ETag"]})
    assert unchanged == 304


@pytest.mark.parametrize(
    ("path", "status"),
    [("/d/nowhere/og.png", 404), ("/d/winter/gone/qr.svg", 404), ("/d/nowhere/qr.svg", 404)],
)
async def test_image_of_nothing_is_a_problem(shown: Harness, path: str, status: int) -> None:
    found, headers, _ = await image(shown, path)
    assert (found, headers["Content-Type"]) == (status, "application/problem+json")


async def test_images_of_a_draft_are_not_public(harness: Harness) -> None:
    know(harness, ABOFLAH, state="draft")
    for path in ("og.png", "qr.svg", "aboflah/qr.svg"):
        assert (await image(harness, f"/d/winter/{path}"))[0] == 404


async def test_qr_code_is_an_svg_for_any_background(shown: Harness) -> None:
    status, headers, svg = await image(shown, "/d/winter/aboflah/qr.svg?platform=tiktok&x=" + "y" * 3000)
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    root = parsed(svg)
    assert root.tag.endswith("svg")
    assert b"#fff" in svg
    assert svg == (await image(shown, "/d/Winter/AboFlah/qr.svg?utm_source=TikTok"))[2]
    assert svg != (await image(shown, "/d/winter/aboflah/qr.svg"))[2]


async def test_codes_without_end_from_one_address_are_limited(tmp_path: Path) -> None:
    proxies = {"trusted_proxies": "127.0.0.1", "limit_address_per_s": 0.001, "limit_burst_s": 2000}
    async with gateway(tmp_path, **proxies) as harness:
        know(harness)
        from_outside = {"X-Forwarded-For": "198.51.100.7"}
        statuses = [
            (await image(harness, f"/d/winter/qr.svg?campaign={n}", **from_outside))[0] for n in range(4)
        ]
        assert statuses == [200, 200, 429, 429]
        assert (await image(harness, "/d/winter/qr.svg?campaign=0", **from_outside))[0] == 200


# --- pictures ---


async def test_picture_is_drawn_once_in_the_interval_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer, now = FakeDrawer(), [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    pictures = Pictures(drawer)
    assert [await pictures.of("drv_1", "en", partial("svg {}".format, n)) for n in range(5)] == [b"svg 0"] * 5
    assert await pictures.of("drv_1", "ar", lambda: "عربي") == b"svg 0"
    assert await pictures.of("drv_2", "ar", lambda: "عربي") == "عربي".encode()
    now[0] += 10
    assert await pictures.of("drv_1", "en", lambda: "svg 6") == b"svg 6"
    now[0] += 10
    assert await pictures.of("drv_1", "en", lambda: "svg 6") == b"svg 6"
    assert drawer.drawn == ["svg 0", "عربي", "svg 6"]


async def test_first_requests_share_a_drawing_and_later_ones_get_the_last_picture() -> None:
    drawer = FakeDrawer()
    pictures = Pictures(drawer)
    drawer.gate.clear()
    asked = [asyncio.create_task(pictures.of("drv_1", "en", lambda: "svg")) for _ in range(20)]
    await until(lambda: drawer.drawn == ["svg"])
    drawer.gate.set()
    assert set(await asyncio.gather(*asked)) == {b"svg"}
    assert drawer.drawn == ["svg"]


async def test_picture_that_cannot_be_drawn_is_the_last_one_or_the_fallback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawer, now = FakeDrawer(), [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    pictures = Pictures(drawer)
    drawer.fails = True
    assert await pictures.of("drv_1", "en", lambda: "svg") == FALLBACK
    now[0], drawer.fails = 10, False
    assert await pictures.of("drv_1", "en", lambda: "svg") == b"svg"
    now[0], drawer.fails = 20, True
    assert await pictures.of("drv_1", "en", lambda: "svg 2") == b"svg"


async def test_pictures_and_codes_kept_are_bounded() -> None:
    drawer = FakeDrawer()
    pictures, codes = Pictures(drawer), QrCodes(drawer)
    for n in range(MAX_DRIVES + 50):
        await pictures.of(f"drv_{n}", "en", partial(str, n))
    for n in range(MAX_KEPT + 50):
        await codes.of(str(n))
    assert len(pictures._drives) == MAX_DRIVES
    assert len(codes._drawn) == MAX_KEPT
    assert not codes._drawing


# --- the drawing process ---


async def test_hung_process_is_killed_and_the_next_drawing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = Drawer()
    monkeypatch.setattr(drawer_module, "TIMEOUT_S", 0.0)
    with pytest.raises(DrawingFailed):
        await drawer.qr_code("x")
    monkeypatch.undo()
    assert b"<svg" in await drawer.qr_code("x")


async def test_invalid_drawing_fails_and_nothing_else() -> None:
    drawer = Drawer()
    with pytest.raises(DrawingFailed):
        await drawer.picture("<svg")
    assert (await drawer.picture('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'))[:8] == PNG


async def test_drawings_that_wait_are_bounded() -> None:
    drawer = Drawer()
    await drawer._turn.acquire()
    waiting = [asyncio.create_task(drawer.qr_code("x")) for _ in range(MAX_WAITING)]
    await until(lambda: drawer._waiting == MAX_WAITING)
    with pytest.raises(DrawingFailed):
        await drawer.qr_code("x")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert drawer._waiting == 0


# --- what is drawn ---


def svg_of(lang: Any = "en", totals_changes: Any = None, **changes: Any) -> str:
    shown = {**drive(), "title": totals()["title"], **changes}
    page = PublicPage(shown, {**totals(), **(totals_changes or {})}, "", Voice(lang, "latn"), Source())
    return picture_svg(page)


def test_picture_shows_title_sum_goal_gifts_and_bar() -> None:
    svg = svg_of()
    parsed(svg)
    for text in ("$4,560,123.45", "of $10,000,000", "97,012 gifts", 'width="477"'):
        assert text in svg
    assert 'x="653"' in svg_of("ar")  # the bar grows from the right


def test_goal_reached_fills_the_bar_and_nothing_given_leaves_it_empty() -> None:
    assert 'width="1060" height="36" rx="18" fill="#ffc44d"' in svg_of(totals_changes={"raised": usd("1e8")})
    assert '#ffc44d"/>' not in svg_of(totals_changes={"raised": usd("0.00")})


@given(title=st.text(max_size=200))
def test_any_title_makes_a_well_formed_picture(title: str) -> None:
    parsed(svg_of(title=title))


def test_hostile_title_is_text() -> None:
    root = parsed(svg_of(title=HOSTILE))
    assert [one.tag for one in root.iter() if "image" in one.tag or "script" in one.tag] == []


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Winter 🎉 2026", "Winter 2026"),
        ("a\u202eb\u0000c\nd", "abc d"),
        ("שלום", ""),
        ("🎉👨\u200d👩\u200d👧", ""),
        ("نِعمة ﷽", "نِعمة ﷽"),
    ],
)
def test_characters_without_a_glyph_or_that_reorder_text_are_left_out(title: str, shown: str) -> None:
    assert drawable(title) == shown


@given(text=st.text("aW ﷽شx", max_size=200), size=st.integers(20, 80))
def test_lines_are_never_wider_than_the_picture(text: str, size: int) -> None:
    found = lines(drawable(text), size, 1060, 2)
    assert len(found) <= 2
    assert all(width(line, size) <= 1060 for line in found)
    whole = re.sub(" ", "", drawable(text))
    kept = re.sub("[ …]", "", "".join(found))
    assert whole.startswith(kept)
    assert (kept == whole) or found[-1].endswith("…")


async def test_picture_route_needs_no_known_language(shown: Harness) -> None:
    for query in ("lang=xx", "digits=arab&lang=ar", "lang=%00", "v=" + "9" * 3000):
        status, _, _ = await image(shown, f"/d/{DRIVE}/og.png?{query}")
        assert status in (200, 422), query
