"""The routes of the public pages: `/d/{drive}`, `/d/{drive}/{creator}`, and what their links need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from backbone.http.problems import NotFound, Overloaded, Problem
from backbone.http.service_client import ServiceUnavailable
from gateway import pages
from gateway.access.same_origin import origin_of
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.router import Handler, Route, is_name, page_routes
from gateway.live.hub import Hub
from gateway.live.totals import LiveReads
from gateway.pages.languages import Voice, choose_voice
from gateway.pages.site import ShortLivedCache, to_lower_case
from gateway.reach.lookups import Found, Lookups
from gateway.reach.public_page import PublicPage
from gateway.reach.sources import source_of

MAX_QUERY: Final = 2000
MAX_SIDE: Final = 100_000
PICTURE_SIZE: Final = (1200, 630)

_VARY: Final[Header] = (b"vary", b"Accept-Language")


class UnknownCreator(NotFound):
    slug, title = "not-found", "Not found"


class UnsupportedFormat(Problem):
    status, slug, title = 501, "unsupported-format", "Unsupported format"


class Shown(NamedTuple):
    """A drive and the creator in it that a path names."""

    drive: Found
    creator: Found | None


class ReachSite:
    """Serves the public pages and the oEmbed data of their links."""

    def __init__(self, lookups: Lookups, live: LiveReads, hub: Hub, public_url: str) -> None:
        self._lookups = lookups
        self._live = live
        self._hub = hub
        self._public_url = public_url
        self._rendered = ShortLivedCache[bytes]()

    def routes(self) -> list[Route]:
        """The public pages, and `/oembed`."""
        page = self._as_page(self.page)
        return [
            *page_routes("/d/{drive}", page),
            *page_routes("/d/{drive}/{creator}", page),
            Route("GET", "/oembed", self.oembed, "live"),
        ]

    def _as_page(self, answer: Handler) -> Handler:
        """`answer`, with HTML pages for the problems that a visitor may meet."""

        async def handle(request: Request) -> Any:
            lower = [part.lower() for part in request.params]
            if lower != list(request.params):
                return to_lower_case(request)
            try:
                return await answer(request)
            except UnknownCreator:
                return _problem(request, 404, "unknown_creator")
            except NotFound:
                return _problem(request, 404, "unknown_drive")
            except (ServiceUnavailable, Overloaded):
                return _problem(request, 503, "unavailable", (b"retry-after", b"2"))

        return handle

    async def page(self, request: Request) -> Response:
        """The public page of a drive, or of a creator in it.

        Raises `NotFound` for an unknown drive or a draft, `UnknownCreator`, `ServiceUnavailable`, and
        `Overloaded` while the figures are read.
        """
        shown = await self.shown(request.params)
        query = query_of(request)
        names = "/".join(str(one["id"]) for one in shown if one)
        key = f"{self.origin(request)} {names} {self._voice(request, shown, query)} {source_of(query)}"
        held = self._rendered.get(key)
        if held is None:
            page = await self._public_page(request, shown, query)
            held = (self._rendered.keep(key, page.render()),)
        return Response(200, [*pages.page_headers("public"), _VARY], held[0])

    async def shown(self, params: Sequence[str]) -> Shown:
        """The drive and the creator that the parameters of a path name; raises as `page`."""
        drive = await self._lookups.drive(params[0])
        if drive is None:
            raise NotFound("No such drive.")
        if len(params) == 1:
            return Shown(drive, None)
        creator = await self._lookups.creator(drive["id"], params[1])
        if creator is None:
            raise UnknownCreator("No such creator in this drive.")
        return Shown(drive, creator)

    async def totals(self, drive_id: str, address: str) -> Found:
        """The drive's totals, as `/v1/drives/{drive}/totals` answers them; raises as that."""
        (view,) = await self._live.views([drive_id], address)
        freshness = self._hub.freshness
        totals: Found = json.loads(view.bytes("full", freshness.state(view), freshness))
        return totals

    def origin(self, request: Request) -> str:
        """The public address of the gateway: the setting's, else the one that the request names."""
        return origin_of(request, self._public_url)

    @staticmethod
    def _voice(request: Request, shown: Shown, query: Mapping[str, str]) -> Voice:
        return choose_voice(query, request.headers.get("accept-language", ""), shown.drive.get("title"))

    async def _public_page(self, request: Request, shown: Shown, query: Mapping[str, str]) -> PublicPage:
        drive, creator = shown
        return PublicPage(
            drive,
            await self.totals(drive["id"], request.address),
            self.origin(request),
            self._voice(request, shown, query),
            source_of(query),
            creator,
            await self._lookups.place(drive["id"], creator["id"]) if creator else None,
            await self._lookups.teams(drive["id"]),
        )

    async def oembed(self, request: Request) -> Response:
        """oEmbed 1.0 data, of type `link`, for the address of a public page.

        Raises `NotFound` for any other address, and `UnsupportedFormat` for another format than JSON (501,
        as the specification has it, section 2.3.1).
        """
        query = query_of(request)
        if query.get("format", "json") != "json":
            raise UnsupportedFormat("Only format=json is offered.")
        parts = urlsplit_or_none(query.get("url", ""))
        if parts is None or f"{parts.scheme}://{parts.netloc}".lower() != self.origin(request).lower():
            raise NotFound("Not an address of a public page.")
        names = unquote(parts.path).lower().strip("/").split("/")
        if names[0] != "d" or len(names) not in (2, 3) or not all(map(is_name, names)):
            raise NotFound("Not an address of a public page.")
        within = dict(parse_qsl(parts.query[:MAX_QUERY]))
        page = await self._public_page(request, await self.shown(names[1:]), within)
        body = json.dumps(_oembed_of(page, query), ensure_ascii=False).encode()
        return json_response(body, headers=[(b"cache-control", b"public, max-age=60"), _VARY])


def _oembed_of(page: PublicPage, query: Mapping[str, str]) -> Mapping[str, Any]:
    width, height = PICTURE_SIZE
    fits = width <= _side(query.get("maxwidth")) and height <= _side(query.get("maxheight"))
    picture = {"thumbnail_url": page.picture, "thumbnail_width": width, "thumbnail_height": height}
    return {
        "version": "1.0",
        "type": "link",
        "title": page.heading,
        "description": page.summary(),
        "author_name": page.creator["name"] if page.creator else page.title,
        "author_url": page.address,
        "provider_name": urlsplit(page.origin).netloc,
        "provider_url": page.origin,
        "cache_age": 60,
        **(picture if fits else {}),
    }


def _side(asked: str | None) -> int:
    """A largest side in pixels; no limit unless it is a number."""
    return int(asked) if asked and asked.isascii() and asked.isdigit() and len(asked) < 7 else MAX_SIDE


def urlsplit_or_none(address: str) -> Any:
    """The parts of an address; None if it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def query_of(request: Request) -> Mapping[str, str]:
    """The parameters of the request's query, as far as it is of a sane length."""
    return dict(parse_qsl(request.query[:MAX_QUERY]))


def _problem(request: Request, status: int, problem: Any, *headers: Header) -> Response:
    body = pages.problem_page(
        query_of(request), problem=problem, accept_language=request.headers.get("accept-language", "")
    )
    return Response(status, [*pages.page_headers("problem"), *headers], body)
