"""The supporter badge: who gets it, what it shows, and that hostile names draw nothing but text."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.pages.badge import TITLE_WIDTH, lines_of
from gateway.pages.languages import choose_voice
from gateway.pages.render import badge_svg
from tests.gateway.harness import DRIVE, PLEDGE, Harness, drive, pledge

TOKEN = f"token-of-{PLEDGE}"
HOSTILE = """</text><script>alert(1)</script><image href="x" onerror='alert(1)'/>&#x3c;]]>{{ 7*7 }}"""
SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {f"{SVG}{tag}" for tag in ("svg", "circle", "clipPath", "rect", "g", "text", "tspan")}


async def badge(harness: Harness, address: str, **headers: str) -> tuple[int, Any, str]:
    async with harness.session.get(address, headers=headers) as reply:
        return reply.status, reply.headers, await reply.text()


def paid(harness: Harness, **changes: Any) -> None:
    harness.entries[PLEDGE] = {"pledge": pledge() | changes, "partner": "default", "test": False}
    harness.checkouts[PLEDGE] = {"status": "paid", "checkout": None, "queue": None}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {DRIVE: drive()}})


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314  it is ours
    assert {element.tag for element in root.iter()} <= DRAWN
    assert not [name for element in root.iter() for name in element.attrib if name.lower().startswith("on")]
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


async def test_the_badge_of_a_paid_pledge_names_drive_and_creator(harness: Harness) -> None:
    paid(harness, creator="crt_1")
    found = {"id": "crt_1", "slug": "nour", "name": "نور"}
    harness.pledges.answers["POST /internal/creators"] = (200, {"data": {f"{DRIVE}/crt_1": found}})
    status, headers, svg = await badge(harness, f"/badge/{PLEDGE}.svg?token={TOKEN}&lang=ar")
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "private" in headers["Cache-Control"]
    assert texts(svg) == ["أنا من داعمي", "شتاء", "مع نور"]
    _, _, english = await badge(harness, f"/badge/{PLEDGE}.svg?token={TOKEN}", **{"Accept-Language": "en"})
    assert texts(english) == ["I support", "Winter", "with نور"]


async def test_nobody_gets_it_without_the_token_or_before_the_payment(harness: Harness) -> None:
    paid(harness)
    for address in (
        f"/badge/{PLEDGE}.svg", f"/badge/{PLEDGE}.svg?token=", f"/badge/{PLEDGE}.svg?token=wrong",
        f"/badge/{PLEDGE}.svg?token=%ff%00", f"/badge/{PLEDGE}?token={TOKEN}",
        f"/badge/{PLEDGE}.png?token={TOKEN}", f"/badge/plg_{'0' * 26}.svg?token={TOKEN}",
        f"/badge/x.svg?token={TOKEN}",
    ):  # fmt: skip
        assert (await badge(harness, address))[0] == 404, address
    for status in (None, "refunded", "disputed", "lapsed", "cancelled"):
        harness.checkouts[PLEDGE]["status"] = status
        assert (await badge(harness, f"/badge/{PLEDGE}.svg?token={TOKEN}"))[0] == 404, status


async def test_the_donors_name_and_amount_are_not_on_it(harness: Harness) -> None:
    paid(harness)
    _, _, svg = await badge(harness, f"/badge/{PLEDGE}.svg?token={TOKEN}")
    assert texts(svg) == ["I support", "Winter"]
    assert TOKEN not in svg
    assert PLEDGE not in svg


@pytest.mark.parametrize(
    "name",
    [
        HOSTILE, "\x00\x01\x0b\x1f\x7f\x85\ufffe\uffff\ud800", "\u202emorf evig\u2066", "W" * 200, "﷽" * 100,
        "Z\u0336\u0322\u0489" * 60, "\U0001f468\u200d\U0001f467" * 40, "ك" + "ـ" * 60 + "شيدة", " ",
        "a\u2028b", "]]>",
    ],
)  # fmt: skip
def test_any_name_is_drawn_as_text(name: str) -> None:
    voice = choose_voice({"lang": "ar"}, "", None)
    shown = texts(badge_svg(voice, lines_of(name, 2), lines_of(name, 1)).decode())
    assert shown[0] == "أنا من داعمي"
    assert not set("\u202e\u2066\x00") & set("".join(shown))


def test_titles_are_broken_at_spaces_and_cut_at_the_end() -> None:
    assert lines_of("Let's make their winter warmer", 2) == ["Let's make their", "winter warmer"]
    assert lines_of("one two " * 20, 2) == ["one two one two one", "two one two one two…"]
    assert lines_of("é" * 40, 1) == ["é" * TITLE_WIDTH + "…"]
    assert lines_of("", 2) == []
