"""The page at `/`."""

from __future__ import annotations

from string import Formatter

import pytest

from gateway.console.translations import TRANSLATIONS
from gateway.pages.languages import pick
from tests.gateway.harness import DRIVE, Harness, drive
from tests.waiting import until

HOSTILE = "<script>alert(1)</script>"


async def shown(harness: Harness, query: str = "", **headers: str) -> str:
    async with harness.session.get(f"/{query}", headers=headers) as reply:
        assert reply.status == 200
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        return await reply.text()


async def test_page_says_what_runs_and_lists_live_drives(harness: Harness) -> None:
    assert str(TRANSLATIONS["root"]["en"]["no_drives"]) in await shown(harness)
    await harness.snapshot(1, "1234.50")

    async def listed() -> bool:
        return "$1,234.50" in await shown(harness)

    await until(listed)
    html = await shown(harness, "?lang=ar")
    assert 'dir="rtl"' in html
    assert 'href="/donate/winter?lang=ar"' in html
    for link in ("/docs", "/docs/guide", "/events", "/console?lang=ar"):
        assert f'href="{link}"' in html


@pytest.mark.parametrize("state", ["draft", "paused", "closed"])
async def test_only_live_drives_are_listed(harness: Harness, state: str) -> None:
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {DRIVE: {**drive(), "state": state}}})
    await harness.snapshot(1)
    await until(lambda: _looked_up(harness))
    assert str(TRANSLATIONS["root"]["en"]["no_drives"]) in await shown(harness)


async def _looked_up(harness: Harness) -> bool:
    async with harness.session.get("/v1/drives/winter/totals") as reply:
        return (await reply.json())["donations"] == 1


async def test_test_drives_are_marked_and_titles_are_escaped(harness: Harness) -> None:
    hostile = {**drive(), "test": True}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": {DRIVE: hostile}})
    taken = harness.snapshot_taken(1)
    taken.totals["title"] = {"en": HOSTILE}
    await harness.publish(taken, lossy=True)

    async def listed() -> bool:
        return "&lt;script&gt;" in await shown(harness)

    await until(listed)
    html = await shown(harness)
    assert HOSTILE not in html
    assert str(TRANSLATIONS["root"]["en"]["test"]) in html


async def test_at_most_twenty_drives_are_listed(harness: Harness) -> None:
    ids = [f"drv_{number:026d}" for number in range(25)]
    known = {one: drive(one, f"d{number}") for number, one in enumerate(ids)}
    harness.pledges.answers["POST /internal/drives"] = (200, {"data": known})
    for number, one in enumerate(ids):
        await harness.snapshot(1, drive_id=one, slug=f"d{number}")

    async def listed() -> bool:
        return (await shown(harness)).count("<progress") == 20

    await until(listed)
    html = await shown(harness)
    assert "/donate/d24?" in html
    assert "/donate/d4?" not in html


async def test_without_pledges_the_page_is_still_there(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/drives"] = (503, {})
    assert str(TRANSLATIONS["root"]["en"]["unavailable"]) in await shown(harness)
    _, _, body = await harness.get("/", Accept="application/json")
    assert (body["name"], body["live"], body["openapi"]) == ("ataa", None, "/openapi.json")


async def test_client_that_accepts_json_only_gets_json(harness: Harness) -> None:
    _, headers, body = await harness.get("/", Accept="application/json")
    assert (headers["Content-Type"], body["live"]) == ("application/json", [])
    assert "accept" in headers["Vary"]


def _holes(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_both_languages_of_a_console_page_have_the_same_texts(page: str) -> None:
    english, arabic = TRANSLATIONS[page]["en"], TRANSLATIONS[page]["ar"]
    assert english.keys() == arabic.keys()
    for key, phrase in english.items():
        assert isinstance(phrase, str) == isinstance(arabic[key], str), key
        if isinstance(phrase, str):
            assert _holes(phrase) == _holes(pick(arabic[key], "ar", None)), key
