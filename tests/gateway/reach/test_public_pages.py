from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import quote

import pytest

from gateway.pages.languages import pick
from gateway.reach.translations import TEXTS
from tests.gateway.harness import DRIVE, Harness, gateway
from tests.gateway.reach.drive_page import ABOFLAH, HOSTILE, know, show, usd
from tests.gateway.test_pages import Outline
from tests.waiting import until

EN = "lang=en"


async def page(harness: Harness, path: str, **headers: str) -> tuple[int, Any, str]:
    async with harness.session.get(path, headers=headers, allow_redirects=False) as reply:
        return reply.status, reply.headers, (await reply.read()).decode()


async def shown(harness: Harness, **changes: Any) -> None:
    """Show the drive, and wait until the gateway has its totals."""
    know(harness, ABOFLAH)
    await show(harness, **changes)

    async def received() -> bool:
        return (await harness.get("/v1/drives/winter/totals"))[2]["sequence"] == changes.get("sequence", 1)

    await until(received)


def attributes(html: str, tag: str) -> list[dict[str, str | None]]:
    return [found for name, found in Outline(html.encode()).tags if name == tag]


def metas(html: str) -> dict[str, str]:
    found = attributes(html, "meta")
    return {
        str(one.get("property") or one.get("name")): str(one["content"]) for one in found if "content" in one
    }


async def test_page_says_everything_but_donors_texts_without_script(harness: Harness) -> None:
    await shown(harness)
    status, headers, html = await page(harness, f"/d/winter?{EN}")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for text in (
        "Let&#39;s make their winter warmer", "$4,560,123.45", "of $10,000,000", "97,012 gifts", 'value="45"',
        "AboFlah", "نور", "$310,000.50", "فريق الكويت",
        "First", "reached", "Half way", "Give now",
    ):  # fmt: skip
        assert text in html, text
    for text in ("أمل", "لكل طفل ليلة دافئة"):  # a cache may keep the page after a moderator has hidden them
        assert text not in html, text
    assert re.search(r"as of <time datetime=\"[^\"]+Z\">\d\d:\d\d UTC</time>", html)


async def test_page_is_live_once_heartbeats_arrive(harness: Harness) -> None:
    await shown(harness)
    await harness.heartbeat()

    async def live() -> bool:
        return 'data-state="live"' in (await page(harness, f"/d/{DRIVE}?{EN}"))[2]

    await until(live)


async def test_preview_tags_name_title_sum_picture_and_canonical_address(harness: Harness) -> None:
    await shown(harness)
    _, _, html = await page(harness, f"/d/winter/aboflah?{EN}&platform=tiktok")
    found, address = metas(html), f"{harness.url}/d/winter/aboflah"
    assert found["og:title"] == found["twitter:title"] == "Let's make their winter warmer · AboFlah"
    assert found["og:description"] == "$4,560,123.45 raised of $10,000,000. 97,012 gifts."
    assert (found["og:url"], found["twitter:card"]) == (address, "summary_large_image")
    assert found["og:image"] == f"{harness.url}/d/winter/og.png?lang=en&v=1"
    assert "robots" not in found
    links = {str(one["rel"]) + str(one.get("type", "")): one["href"] for one in attributes(html, "link")}
    assert links["canonical"] == address
    assert links["alternateapplication/json+oembed"] == (
        f"{harness.url}/oembed?url={quote(address, safe='')}&format=json"
    )


async def test_arabic_page_reads_from_right_to_left_in_its_own_digits(harness: Harness) -> None:
    await shown(harness)
    _, _, html = await page(harness, "/d/winter?digits=arab", **{"Accept-Language": "ar-KW"})
    assert '<html lang="ar" dir="rtl">' in html
    assert "٤٬٥٦٠٬١٢٣٫٤٥" in html
    assert metas(html)["og:locale"] == "ar_AR"
    assert 'href="/donate/winter?lang=ar&amp;digits=arab"' in html


async def test_links_keep_creator_and_source(harness: Harness) -> None:
    await shown(harness)
    source = "utm_source=TikTok&utm_campaign=%23Winter%20Night&junk=1"
    _, _, html = await page(harness, f"/d/winter/aboflah?{EN}&{source}")
    links = {unescape(str(one["href"])) for one in attributes(html, "a")}
    query = "lang=en&platform=tiktok&campaign=winter-night"
    assert f"/donate/winter?creator=aboflah&{query}" in links
    assert f"/d/winter/noor?{query}" in links
    assert f"/d/winter?{query}" in links


@pytest.mark.parametrize("path", ["/d/nowhere", "/d/nowhere/aboflah", "/d/%00", "/d/a%2Fb"])
async def test_unknown_drive_is_an_html_404_or_a_problem(harness: Harness, path: str) -> None:
    know(harness)
    status, _, text = await page(harness, f"{path}?{EN}")
    assert status == 404
    assert "There is no such drive" in text or "/problems/not-found" in text


async def test_unknown_creator_is_an_html_404(harness: Harness) -> None:
    await shown(harness)
    for name in ("gone", "x.y", "og.jpg"):
        status, _, html = await page(harness, f"/d/winter/{name}?{EN}")
        assert (status, "There is no such creator in this drive" in html) == (404, True), name


async def test_draft_is_not_public(harness: Harness) -> None:
    know(harness, ABOFLAH, state="draft")
    for path in ("/d/winter", "/d/winter/aboflah"):
        assert (await page(harness, path))[0] == 404


async def test_test_drive_is_marked_and_not_indexed(harness: Harness) -> None:
    know(harness, test=True)
    _, _, html = await page(harness, f"/d/winter?{EN}")
    assert metas(html)["robots"] == "noindex"
    assert "Test mode" in html


@pytest.mark.parametrize(("state", "may_give"), [("paused", True), ("closed", False)])
async def test_page_of_a_drive_that_takes_no_gifts_says_so(
    harness: Harness, state: str, may_give: bool
) -> None:
    know(harness, state=state)
    _, _, html = await page(harness, f"/d/winter?{EN}")
    assert f"This drive is {state}" in html
    assert ('id="give"' in html) is may_give


async def test_upper_case_address_is_redirected(harness: Harness) -> None:
    know(harness, ABOFLAH)
    status, headers, _ = await page(harness, "/d/Winter/AboFlah?platform=X")
    assert (status, headers["Location"]) == (308, "/d/winter/aboflah?platform=X")


async def test_page_is_shown_while_boards_cannot_be_read(harness: Harness) -> None:
    await shown(harness)
    harness.leaderboard.answers = {}
    status, _, html = await page(harness, f"/d/winter/aboflah?{EN}")
    assert (status, "Teams" in html, "$4,560,123.45" in html) == (200, False, True)


async def test_page_is_an_html_503_while_pledges_is_unavailable(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/drives"] = (500, {})
    status, headers, html = await page(harness, f"/d/winter?{EN}")
    assert (status, headers["Retry-After"], "Back in a moment" in html) == (503, "2", True)


async def test_texts_of_owners_and_donors_are_escaped(harness: Harness) -> None:
    leader = {"rank": 1, "creator": "crt_205", "slug": "aboflah", "name": HOSTILE, "raised": usd("5.00")}
    gift = {"id": "don_1", "name": HOSTILE, "message": HOSTILE, "amount": usd("5.00")}
    milestone = {"title": HOSTILE, "amount": usd("5.00"), "reached_at": None}
    await shown(harness, title=HOSTILE, leaders=[leader], recent=[gift], milestones=[milestone])
    know(harness, {**ABOFLAH, "name": HOSTILE}, title=HOSTILE, description=HOSTILE)
    for path in ("/d/winter", "/d/winter/aboflah"):
        _, headers, html = await page(harness, f"{path}?{EN}&platform={quote(HOSTILE)}")
        assert "<img src=x" not in html
        assert html.count("<script") == 2
        assert all("onerror" not in one for one in attributes(html, "img"))
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ['evil"><script>', "a/b", "x" * 300])
async def test_malformed_host_is_not_repeated(harness: Harness, host: str) -> None:
    know(harness)
    status, _, html = await page(harness, "/d/winter", Host=host)
    assert status == 200
    assert host not in unescape(html)


async def test_oembed_describes_a_page(harness: Harness) -> None:
    await shown(harness)
    address = f"{harness.url}/d/winter/aboflah?lang=en"
    status, headers, found = await harness.get(f"/oembed?url={quote(address, safe='')}&format=json")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert (found["version"], found["type"], found["author_name"]) == ("1.0", "link", "AboFlah")
    assert found["title"] == "Let's make their winter warmer · AboFlah"
    assert found["thumbnail_width"] == 1200
    small = (await harness.get(f"/oembed?url={quote(address, safe='')}&maxwidth=400"))[2]
    assert "thumbnail_url" not in small


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("url=https%3A%2F%2Fevil.example%2Fd%2Fwinter", 404),
        ("url=%5B%3A%3A&format=json", 404),
        ("url=https%3A%2F%2F%5B%3A%3A1", 404),
        ("url={base}%2Fd%2Fnowhere", 404),
        ("url={base}%2Fd%2F..%2Fwinter%2F", 404),
        ("url={base}%2Fdonate%2Fwinter", 404),
        ("url={base}%2Fd%2Fwinter&format=xml", 501),
        ("url={base}%2Fd%2Fwinter&maxwidth=-1&maxheight=9999999999", 200),
    ],
)
async def test_oembed_answers_for_public_pages_only(harness: Harness, query: str, status: int) -> None:
    know(harness)
    query = query.format(base=quote(harness.url, safe=""))
    found, headers, answer = await harness.get(f"/oembed?{query}")
    assert found == status
    assert status == 200 or headers["Content-Type"] == "application/problem+json"
    assert isinstance(answer, dict)


def test_both_languages_have_the_same_texts_and_placeholders() -> None:
    assert TEXTS["en"].keys() == TEXTS["ar"].keys()
    for key in TEXTS["en"]:
        for n in (None, 0, 1, 2, 5, 11, 100):
            names = [
                {name for _, name, _, _ in Formatter().parse(pick(TEXTS[lang][key], lang, n)) if name} - {"n"}
                for lang in ("en", "ar")
            ]
            assert names[0] == names[1], key


async def test_hostile_queries_are_answered(harness: Harness) -> None:
    await shown(harness)
    for query in ("lang=%00", "platform=" + "x" * 5000, "digits=%F0%9F%98%80", "&&=&=", "campaign=%E2%80%AE"):
        status, _, _ = await page(harness, f"/d/winter?{query}")
        assert status in (200, 422), query


async def test_address_of_the_setting_is_the_canonical_one(tmp_path: Path) -> None:
    async with gateway(tmp_path, public_url="https://give.example.org/") as harness:
        know(harness)
        _, _, html = await page(harness, "/d/winter", Host="evil.example")
        assert metas(html)["og:url"] == "https://give.example.org/d/winter"
        address = quote("https://give.example.org/d/winter", safe="")
        assert (await harness.get(f"/oembed?url={address}"))[0] == 200


async def test_source_of_a_link_becomes_the_source_of_the_pledge(harness: Harness) -> None:
    await shown(harness)
    link = "platform=TikTok&utm_campaign=%23Winter&referrer=https%3A%2F%2Fwww.tiktok.com%2F%40x%3Fy"
    _, _, html = await page(harness, f"/donate/winter?{EN}&{link}")
    source = {"platform": "tiktok", "campaign": "winter", "referrer": "https://www.tiktok.com"}
    assert json.loads(Outline(html.encode()).texts["page"])["source"] == source
    assert {"platform=TikTok", "utm_campaign=%23Winter"} <= set(re.split("[?&]", language_link(html)))
    _, _, html = await page(harness, f"/donate/winter?{EN}&creator=aboflah")
    assert json.loads(Outline(html.encode()).texts["page"])["source"] is None


def language_link(html: str) -> str:
    return next(str(one["href"]) for one in attributes(html, "a") if one.get("hreflang") == "ar")
