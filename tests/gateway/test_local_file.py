"""The file that starts an overlay before its server: its address, its escaping, and how it is served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from gateway.pages.local_file import local_file
from tests.gateway.harness import Harness, gateway

HOSTILE = """</script></title><img src=x onerror=alert(1)>"'&\u2028"""


def address_in(text: str) -> str:
    found = re.findall(r"^const ADDRESS = (.*);$", text, re.MULTILINE)
    assert len(found) == 1
    return str(json.loads(found[0]))


def test_file_has_the_address_of_the_chosen_overlay() -> None:
    chosen = "parts=bar,alerts&lang=ar&digits=arab&theme=light&layout=vertical&size=l"
    query = dict(parse_qsl(chosen))
    text = local_file("https://give.example", "winter", {"en": "Winter", "ar": "شتاء"}, query).decode()
    assert address_in(text) == f"https://give.example/overlay/winter?{chosen}"
    assert "<title>شتاء</title>" in text


def test_file_without_choices_has_all_parts_and_the_language_of_the_title() -> None:
    address = address_in(local_file("https://give.example", "winter", {"ar": "شتاء"}, {}).decode())
    assert parse_qs(urlsplit(address).query) == {
        "parts": ["bar,goal,leaders,alerts,ticker,milestones,matching"], "lang": ["ar"],
    }  # fmt: skip


def test_hostile_texts_are_escaped_in_the_file() -> None:
    query = dict.fromkeys(("parts", "lang", "digits", "theme", "layout", "size", "other"), HOSTILE)
    text = local_file(f"https://{HOSTILE}", HOSTILE, {"en": HOSTILE}, query).decode()
    assert text.count("<script>") == text.count("</script>") == text.count("</title>") == 1
    assert "<img" not in text
    asked = parse_qs(urlsplit(address_in(text)).query)
    assert set(asked) <= {"parts", "lang"}


async def test_file_is_saved_and_never_shown_as_a_page(harness: Harness) -> None:
    async with harness.session.get("/overlay/winter/file?lang=ar&theme=light") as reply:
        text = await reply.text()
    assert reply.status == 200
    assert reply.headers["Content-Disposition"] == 'attachment; filename="ataa-overlay-winter.html"'
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert address_in(text).startswith(f"{str(harness.url).rstrip('/')}/overlay/winter?parts=")
    assert address_in(text).endswith("&lang=ar&theme=light")


async def test_file_has_the_public_address(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, public_url="https://give.example") as harness,
        harness.session.get("/overlay/winter/file") as reply,
    ):
        assert address_in(await reply.text()).startswith("https://give.example/overlay/winter?")


@pytest.mark.parametrize("host", ["a b", "<script>", "x" * 300, "a/b", '"'])
async def test_file_without_a_usable_host_is_not_found(harness: Harness, host: str) -> None:
    async with harness.session.get("/overlay/winter/file", headers={"Host": host}) as reply:
        assert reply.status in (400, 404)


async def test_file_of_an_unknown_drive_is_not_found(harness: Harness) -> None:
    async with harness.session.get("/overlay/nowhere/file") as reply:
        assert (reply.status, "Content-Disposition" in reply.headers) == (404, False)


async def test_overlay_waits_unseen_while_pledges_is_unavailable(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/drives"] = (500, {})
    async with harness.session.get("/overlay/spring") as reply:
        text = await reply.text()
    assert (reply.status, reply.headers["Refresh"]) == (503, "5")
    assert "frame-ancestors * file:" in reply.headers["Content-Security-Policy"]
    assert re.sub(r"\s", "", text.partition("<body>")[2]) == "</body></html>"
