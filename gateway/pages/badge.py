"""The supporter badge: an SVG frame for a profile picture, with the drive's name and the creator's.

`/badge/{pledge}.svg?token=` is served with the pledge's token, once the pledge is paid. It shows nothing of
the donor. Text is escaped by the template, and the response forbids everything but drawing.
"""

from __future__ import annotations

import asyncio
import hmac
import unicodedata
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from backbone import ids
from backbone.http.problems import NotFound
from backbone.http.service_client import ServiceClient, post_internal
from gateway.access.keys import KeyRing
from gateway.access.limits import ConcurrencyLimit, RateLimits
from gateway.http.asgi import Header, Request, Response
from gateway.http.router import Route
from gateway.pages.languages import choose_voice, localised
from gateway.pages.render import badge_svg
from gateway.proxy.waits import Waits, status_of

TITLE_WIDTH: Final = 22
"""Width of a line of the title, in letters of average width."""

_HEADERS: Final[list[Header]] = [
    (b"content-type", b"image/svg+xml; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"private, max-age=60"),
    (b"x-content-type-options", b"nosniff"),
]


class Badges:
    """Looks up a paid pledge and draws its badge."""

    def __init__(
        self,
        pledges: ServiceClient,
        secret: str,
        key_ring: KeyRing,
        limits: RateLimits,
        concurrency_limit: ConcurrencyLimit,
        waits: Waits,
    ) -> None:
        self._pledges = pledges
        self._secret = secret
        self._public = key_ring.public
        self._limits = limits
        self._concurrency_limit = concurrency_limit
        self._waits = waits

    def routes(self) -> list[Route]:
        """The badge of a pledge."""
        return [Route("GET", "/badge/{pledge}", self._badge)]

    async def _badge(self, request: Request) -> Response:
        self._limits.spend(self._public, request.address)
        pledge_id, dot, kind = request.params[0].partition(".")
        query = dict(parse_qsl(request.query[:2000]))
        if f"{dot}{kind}" != ".svg" or not ids.is_id(pledge_id, "plg"):
            raise NotFound("No such badge.")
        with self._concurrency_limit:
            pledge = await self._paid_pledge(pledge_id, query.get("token", ""))
            drive, creator = await self._names(pledge)
        language = request.headers.get("accept-language", "")
        voice = choose_voice(query, language, drive["title"])
        title = localised(drive["title"], voice.lang) or drive["slug"]
        body = badge_svg(voice, lines_of(title, 2), lines_of(creator, 1))
        name = f'inline; filename="{drive["slug"]}.svg"'.encode()
        return Response(200, [*_HEADERS, (b"content-disposition", name)], body)

    async def _paid_pledge(self, pledge_id: str, token: str) -> Mapping[str, Any]:
        """The pledge; raises `NotFound` for a wrong token, or while it is not paid."""
        entry, checkout = await asyncio.gather(
            self._waits.pledges.look_up(pledge_id), self._waits.checkouts.look_up(pledge_id)
        )
        own = "" if entry is None else str(entry["pledge"]["token"])
        if entry is None or not hmac.compare_digest(token.encode("utf-8", "replace"), own.encode()):
            raise NotFound("No such badge.")
        pledge: Mapping[str, Any] = entry["pledge"]
        if status_of(pledge, checkout or {}) not in ("paid", "partly_refunded"):
            raise NotFound("This pledge has no badge: it is not paid.")
        return pledge

    async def _names(self, pledge: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """The drive, and the name of the creator that the pledge credits, else an empty text."""
        drive_id, creator = pledge["drive"], pledge["creator"]
        found = await post_internal(self._pledges, self._secret, "/internal/drives", {"refs": [drive_id]})
        if drive_id not in found["data"]:
            raise NotFound("No such badge.")
        if creator is None:
            return found["data"][drive_id], ""
        ref = f"{drive_id}/{creator}"
        named = await post_internal(self._pledges, self._secret, "/internal/creators", {"refs": [ref]})
        return found["data"][drive_id], str(named["data"].get(ref, {}).get("name", ""))


def lines_of(text: str, most: int) -> list[str]:
    """`text` in at most `most` lines of `TITLE_WIDTH`, broken at spaces; what is left over becomes "…"."""
    lines: list[str] = []
    words = _drawable(text).split()
    while words and len(lines) < most:
        line = words.pop(0)
        while words and _width(f"{line} {words[0]}") <= TITLE_WIDTH:
            line = f"{line} {words.pop(0)}"
        lines.append(_shortened(line))
    if words and not lines[-1].endswith("…"):
        lines[-1] += "…"
    return lines


def _drawable(text: str) -> str:
    """`text` without characters that XML 1.0 excludes, and without control and bidirectional controls."""
    return "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or character == "\u200d" or unicodedata.category(character)[0] != "C"
    )


def _width(text: str) -> int:
    return sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" or character in "WMmwﷺﷻ﷽" else 1


def _shortened(line: str) -> str:
    """`line`, cut where it is too wide; never between a letter and its marks."""
    width, kept = 0, ""
    for character in line:
        width += _width_of(character)
        if width > TITLE_WIDTH:
            return kept.rstrip("\u200d") + "…"
        kept += character
    return kept
