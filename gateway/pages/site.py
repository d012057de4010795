"""The routes of the HTML pages: the overlay, the donate form, the thanks page (`gateway.pages`)."""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

from backbone.clock import Clock
from backbone.http.problems import NotFound, Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from gateway import pages
from gateway.access.keys import Bearer, KeyRing
from gateway.access.limits import ConcurrencyLimit, RateLimits
from gateway.access.same_origin import origin_of
from gateway.fees import FeeRule
from gateway.http.asgi import AsgiResponse, Request, Response, json_response
from gateway.http.conditional import not_modified
from gateway.http.router import Handler, Route, page_routes
from gateway.pages.frames import Frame, find_frame
from gateway.pages.local_file import local_file, local_file_headers, waiting_page

CACHE_S: Final = 2.0
MAX_CACHED: Final = 1000
MAX_LISTED: Final = 100
"""Creators the donate form lists; where a drive has more, it finds the others by name."""

_REF: Final = re.compile("[a-z0-9_-]{1,64}", re.ASCII)

_RELOAD: Final = ((b"retry-after", b"2"), (b"refresh", b"5"))
"""A source of a streaming tool has nobody to reload it, so the page of a 503 does it itself."""

Drive = Mapping[str, Any]
PageOfDrive = Callable[[Request, Drive], Awaitable[Response]]
Unavailable = Callable[[Request], Awaitable[Response]]
Found = TypeVar("Found")


class ShortLivedCache(Generic[Found]):
    """A cache of the newest thousand lookups, each kept for two seconds."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[float, Found]] = OrderedDict()

    def get(self, key: str) -> tuple[Found] | None:
        """The cached result, which may be None, in a tuple; None if there is no recent one."""
        held = self._held.get(key)
        return (held[1],) if held is not None and asyncio.get_running_loop().time() < held[0] else None

    def keep(self, key: str, found: Found) -> Found:
        """Cache `found` and return it."""
        self._held[key] = (asyncio.get_running_loop().time() + CACHE_S, found)
        self._held.move_to_end(key)
        while len(self._held) > MAX_CACHED:
            self._held.popitem(last=False)
        return found


async def _unavailable(request: Request) -> Response:
    language = request.headers.get("accept-language", "")
    body = pages.problem_page(_query(request), problem="unavailable", accept_language=language)
    return Response(503, [*pages.page_headers("problem"), *_RELOAD], body)


async def _waiting(request: Request) -> Response:
    # Viewers see what a source shows, so the page that waits for an overlay shows nothing.
    return Response(503, [*pages.page_headers("overlay"), *_RELOAD], waiting_page(_query(request)))


class Site:
    """Looks up a drive and serves its pages."""

    def __init__(
        self,
        pledges: ServiceClient,
        secret: str,
        reader: Bearer,
        key_ring: KeyRing,
        limits: RateLimits,
        concurrency_limit: ConcurrencyLimit,
        clock: Clock,
        fee: FeeRule,
        embedded_checkout: bool,
        public_url: str,
    ) -> None:
        self._public_url = public_url
        self._embedded_checkout = embedded_checkout
        self._fee = fee
        self._pledges = pledges
        self._secret = secret
        self._reader = reader
        self._concurrency_limit = concurrency_limit
        self._clock = clock
        self._key_ring = key_ring
        self._limits = limits
        self._drives = ShortLivedCache[Drive | None]()
        self._lists = ShortLivedCache[pages.Creators]()
        self._creators_by_name = ShortLivedCache[Drive | None]()
        self._others = ShortLivedCache[Sequence[pages.OtherCurrency]]()

    def routes(self) -> list[Route]:
        """The pages and their assets."""
        return [
            *page_routes("/overlay/{drive}", self._page(self._overlay, _waiting)),
            *page_routes("/overlay/{drive}/setup", self._page(self._setup)),
            Route("GET", "/overlay/{drive}/file", self._page(self._local_file)),
            *page_routes("/donate/{drive}", self._page(self._donate)),
            *page_routes("/donate/{drive}/thanks", self._page(self._thanks)),
            Route("GET", "/donate/{drive}/creators", self._search),
            *page_routes("/embed/{drive}", self._page(self._framed(self._donate))),
            *page_routes("/embed/{drive}/thanks", self._page(self._framed(self._thanks))),
            *page_routes("/donate/{drive}/pay", self._page(self._pay)),
            *page_routes("/embed/{drive}/pay", self._page(self._framed(self._pay))),
            Route("GET", "/embed.js", _embed_script),
            Route("GET", "/assets/{…}", _assets),
            Route("GET", "/favicon.ico", _to_icon),
        ]

    def _page(self, render: PageOfDrive, unavailable: Unavailable = _unavailable) -> Handler:
        async def handle(request: Request) -> Response:
            ref = request.params[0]
            if ref != ref.lower():
                return to_lower_case(request)
            language = request.headers.get("accept-language", "")
            try:
                drive = await self._find(ref)
                if drive is not None:
                    return await render(request, drive)
            except (ServiceUnavailable, Overloaded):
                return await unavailable(request)
            body = pages.problem_page(_query(request), accept_language=language)
            return Response(404, pages.page_headers("problem"), body)

        return handle

    async def _overlay(self, request: Request, drive: Drive) -> Response:
        impact, query = drive.get("impact") or (), _query(request)
        creator = await self._creator(drive["id"], query.get("creator", ""))
        body = pages.overlay_page(
            request.params[0], drive["title"], query, impact=impact, creator=creator and creator.get("id")
        )
        return Response(200, pages.page_headers("overlay"), body)

    async def _setup(self, request: Request, drive: Drive) -> Response:
        language = request.headers.get("accept-language", "")
        body = pages.setup_page(request.params[0], drive, _query(request), accept_language=language)
        return Response(200, pages.page_headers("setup"), body)

    async def _local_file(self, request: Request, drive: Drive) -> Response:
        """The overlay of the query as a file to download; raises NotFound without a usable Host."""
        ref, origin = request.params[0], origin_of(request, self._public_url)
        if not origin:
            raise NotFound("The request names no usable Host.")
        body = local_file(origin, ref, drive["title"], _query(request))
        return Response(200, local_file_headers(ref), body)

    def _framed(self, render: Callable[[Request, Drive, Frame | None], Awaitable[Response]]) -> PageOfDrive:
        """The page in a frame of a partner's page; 403 where the address names no page that may frame it."""

        async def handle(request: Request, drive: Drive) -> Response:
            query = _query(request)
            frame = find_frame(self._key_ring, query, drive)
            if frame is not None:
                return await render(request, drive, frame)
            language = request.headers.get("accept-language", "")
            body = pages.problem_page(query, problem="frame_refused", accept_language=language)
            return Response(403, pages.page_headers("problem"), body)

        return handle

    async def _donate(self, request: Request, drive: Drive, frame: Frame | None = None) -> Response:
        ref = pages.drive_refs(drive)[0]
        query = _query(request)
        key_id = frame.key_id if frame else ""
        token = pages.mint_form_token(self._secret.encode(), ref, self._clock.now(), key_id)
        body = pages.donate_page(
            drive,
            await self._creators(drive["id"]),
            query,
            token,
            creator=await self._creator(drive["id"], query.get("creator", "")),
            accept_language=request.headers.get("accept-language", ""),
            frame=frame,
            fee=self._fee.of(str(drive["currency"])),
            others=await self._other_currencies(drive),
            embedded_checkout=self._embedded_checkout,
        )
        return Response(200, pages.page_headers("donate", frame.ancestors if frame else ()), body)

    async def _thanks(self, request: Request, drive: Drive, frame: Frame | None = None) -> Response:
        language = request.headers.get("accept-language", "")
        body = pages.thanks_page(drive, _query(request), accept_language=language, frame=frame)
        return Response(200, pages.page_headers("thanks", frame.ancestors if frame else ()), body)

    async def _pay(self, request: Request, drive: Drive, frame: Frame | None = None) -> Response:
        language = request.headers.get("accept-language", "")
        body = pages.pay_page(drive, _query(request), accept_language=language, frame=frame)
        return Response(200, pages.page_headers("pay", frame.ancestors if frame else ()), body)

    async def _search(self, request: Request) -> Response:
        """The form's search: the drive's creators whose name contains a text, as JSON.

        Raises NotFound, ServiceUnavailable, and TooManyRequests beyond the limit of the client's address.
        """
        self._limits.spend(self._key_ring.public, request.address)
        drive = await self._find(request.params[0].lower())
        if drive is None:
            raise NotFound("No such drive.")
        asked = {"drive": drive["id"], "text": _query(request).get("q", "").replace("\x00", "")[:100].strip()}
        with self._concurrency_limit:
            reply = await post_internal(self._pledges, self._secret, "/internal/creator-search", asked)
        return json_response(json.dumps(reply["data"]).encode(), headers=[(b"cache-control", b"no-store")])

    async def _find(self, ref: str) -> Drive | None:
        """The drive, at most two seconds old; raises `ServiceUnavailable`, `Overloaded`."""
        held = self._drives.get(ref)
        if held is not None:
            return held[0]
        with self._concurrency_limit:
            reply = await post_internal(self._pledges, self._secret, "/internal/drives", {"refs": [ref]})
        found: Drive | None = reply["data"].get(ref)
        return self._drives.keep(ref, found)

    async def _creator(self, drive_id: str, asked: str) -> Drive | None:
        """The creator a link names by id or slug, in any case; None if the drive has no such creator."""
        name = asked.strip().lower()
        if _REF.fullmatch(name) is None:
            return None
        ref = f"{drive_id}/{name}"
        held = self._creators_by_name.get(ref)
        if held is not None:
            return held[0]
        try:
            with self._concurrency_limit:
                reply = await post_internal(
                    self._pledges, self._secret, "/internal/creators", {"refs": [ref]}
                )
        except ServiceUnavailable:
            # Unavailable, or without this route: whether the creator exists is checked with the pledge.
            return {"slug": name, "name": name}
        found: Drive | None = reply["data"].get(ref)
        return self._creators_by_name.keep(ref, found)

    async def _other_currencies(self, drive: Drive) -> Sequence[pages.OtherCurrency]:
        """The currencies besides its own that the drive takes and for which pledges has an exchange rate now.

        None where pledges cannot be asked, or is of a version without this route: the form then has one.
        """
        taken, own = drive.get("currencies") or (), drive["currency"]
        held = self._others.get(drive["id"]) if taken else ((),)
        if held is not None:
            return held[0]
        pairs = [f"{code}/{own}" for code in taken]
        try:
            with self._concurrency_limit:
                asked = {"pairs": pairs}
                reply = await post_internal(self._pledges, self._secret, "/internal/rates", asked)
        except ServiceUnavailable:
            return ()
        rates = reply["data"]
        found = [
            pages.OtherCurrency(code, rates[pair], self._fee.of(code))
            for code, pair in zip(taken, pairs, strict=True)
            if pair in rates
        ]
        return self._others.keep(drive["id"], found)

    async def _creators(self, drive_id: str) -> pages.Creators:
        """The first creators of the drive, and whether it has more."""
        held = self._lists.get(drive_id)
        if held is not None:
            return held[0]
        path = f"/v1/drives/{drive_id}/creators"
        with self._concurrency_limit:
            reply = await self._pledges.request(
                "GET", path, headers=self._reader.signed, query=f"limit={MAX_LISTED}"
            )
        if reply.status != 200:
            raise ServiceUnavailable(f"{path} answered {reply.status}")
        page = reply.json()
        return self._lists.keep(drive_id, pages.Creators(page["data"], page["next"] is not None))


def to_lower_case(request: Request) -> Response:
    """Ids and slugs are in lower case; a link typed by hand may not be."""
    parts = [part.lower() if part in request.params else part for part in request.path.split("/")]
    query = f"?{request.query}" if request.query else ""
    return Response(308, [(b"location", f"{'/'.join(parts)}{query}".encode())])


def _query(request: Request) -> Mapping[str, str]:
    return dict(parse_qsl(request.query[:2000]))


async def _assets(request: Request) -> AsgiResponse:
    return AsgiResponse(pages.assets_app)


async def _embed_script(request: Request) -> Response:
    """`/embed.js`: cached for five minutes, so that partners' pages get a new version soon."""
    body, content_type, etag = pages.embed_script()
    headers = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=300"),
        (b"access-control-allow-origin", b"*"),  # for `crossorigin` on the script element
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
    unchanged = not_modified(request, etag, headers)
    return unchanged or Response(200, [(b"content-type", content_type.encode()), *headers], body)


async def _to_icon(request: Request) -> Response:
    # Browsers request /favicon.ico for documents without an icon of their own, such as plain JSON.
    return Response(307, [(b"location", pages.asset_url("mark.svg").encode())])
