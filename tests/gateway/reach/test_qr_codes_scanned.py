"""The QR codes as another library's scanner reads them from the picture that a phone sees."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import resvg_py
import zxingcpp

from gateway.reach.drawing import qr_code
from tests.gateway.harness import Harness
from tests.gateway.reach.drive_page import ABOFLAH, know

PIXELS: Final = 3
"""The width of a module in the pictures; on the public page the code of a short link has 240 / 53 = 4.5."""


def scanned(svg: bytes) -> list[str]:
    """The texts of all codes in a picture."""
    drawn = resvg_py.svg_to_bytes(svg_string=svg.decode(), zoom=PIXELS)
    width, rows = grey_rows(bytes(drawn))
    picture = memoryview(b"".join(rows)).cast("B", (len(b"".join(rows)) // width, width))
    return [code.text for code in zxingcpp.read_barcodes(picture)]


def grey_rows(png: bytes) -> tuple[int, list[bytes]]:
    """The width, and one byte a pixel of each row, of a PNG with 8-bit RGBA pixels (ISO/IEC 15948, 9.2)."""
    width, depth, colour = int.from_bytes(png[16:20]), png[24], png[25]
    assert (depth, colour, png[28]) == (8, 6, 0)
    raw, size = zlib.decompress(b"".join(data_chunks(png))), 4 * width
    rows, above = [], bytearray(size)
    for start in range(0, len(raw), size + 1):
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + size])
        for at in range(size):
            left, corner = (row[at - 4], above[at - 4]) if at >= 4 else (0, 0)
            guesses = (0, left, above[at], (left + above[at]) // 2, paeth(left, above[at], corner))
            row[at] = (row[at] + guesses[kind]) & 255
        rows.append(bytes(row[::4]))
        above = row
    return width, rows


def paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda one: abs(guess - one))


def data_chunks(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            yield png[at + 8 : at + 8 + length]
        at += length + 12


@pytest.mark.parametrize("path", ["/d/winter/qr.svg", "/d/winter/aboflah/qr.svg"])
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", {"platform": "qr"}),
        ("lang=en&platform=TikTok&campaign=winter", {"platform": "tiktok", "campaign": "winter"}),
        (f"lang=ar&utm_source=ig&hashtag={quote('#شتاء')}", {"platform": "instagram", "campaign": "شتاء"}),
        (f"platform={'x' * 99}&campaign={quote('ش' * 99)}", {"platform": "x" * 32, "campaign": "ش" * 64}),
    ],
)  # fmt: skip
async def test_scanned_code_is_the_donate_link_with_creator_and_source(
    harness: Harness, path: str, query: str, named: dict[str, str]
) -> None:
    know(harness, ABOFLAH)
    async with harness.session.get(f"{path}?{query}") as reply:
        assert reply.status == 200
        (link,) = scanned(await reply.read())
    parts = urlsplit(link)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{harness.url}/donate/winter"
    creator = {"creator": ["aboflah"]} if "aboflah" in path else {}
    assert parse_qs(parts.query) == {**creator, **{name: [value] for name, value in named.items()}}


@pytest.mark.parametrize("length", [20, 300, 900])
def test_links_of_every_length_are_read(length: int) -> None:
    link = "https://give.example/donate/winter?campaign=".ljust(length, "a")
    assert scanned(qr_code(link)) == [link]
