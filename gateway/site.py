"""Pages for people: the overlay, the donate form and what surrounds it; see `gateway.pages`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from backbone.clock import Clock
from backbone.peer import Peer, PeerUnavailable, ask
from backbone.problems import Overloaded
from gateway import pages
from gateway.asgi import Answer, AsgiReply, Request
from gateway.keys import Bearer
from gateway.limits import Lane
from gateway.router import Handler, Route, page_routes

DRIVE_CACHE_S: Final = 2.0
MOST_CACHED: Final = 1000
MOST_CREATORS: Final = 200

Drive = Mapping[str, Any]


class Site:
    """Finds a drive and hands it to its page."""

    def __init__(self, pledges: Peer, secret: str, reader: Bearer, lane: Lane, clock: Clock) -> None:
        self._pledges = pledges
        self._secret = secret
        self._reader = reader
        self._lane = lane
        self._clock = clock
        self._drives: OrderedDict[str, tuple[float, Drive | None, list[Drive]]] = OrderedDict()

    def routes(self) -> list[Route]:
        """The pages and what they load."""
        return [
            Route("GET", "/", _to_docs),
            *page_routes("/overlay/{drive}", self._page(self._overlay)),
            *page_routes("/donate/{drive}", self._page(self._donate)),
            *page_routes("/donate/{drive}/thanks", self._page(self._thanks)),
            Route("GET", "/assets/{…}", _assets),
            Route("GET", "/favicon.ico", _to_icon),
        ]

    def _page(self, render: Callable[[Request, Drive, list[Drive]], Answer]) -> Handler:
        async def handle(request: Request) -> Answer:
            language = request.headers.get("accept-language", "")
            try:
                drive, creators = await self._find(request.params[0])
            except (PeerUnavailable, Overloaded):
                body = pages.problem_page(_query(request), problem="unavailable", accept_language=language)
                return Answer(503, [*pages.page_headers("problem"), (b"retry-after", b"2")], body)
            if drive is None:
                body = pages.problem_page(_query(request), accept_language=language)
                return Answer(404, pages.page_headers("problem"), body)
            return render(request, drive, creators)

        return handle

    def _overlay(self, request: Request, drive: Drive, _: list[Drive]) -> Answer:
        body = pages.overlay_page(request.params[0], drive["title"], _query(request))
        return Answer(200, pages.page_headers("overlay"), body)

    def _donate(self, request: Request, drive: Drive, creators: list[Drive]) -> Answer:
        ref = pages.drive_refs(drive)[0]
        token = pages.mint_form_token(self._secret.encode(), ref, self._clock.now())
        language = request.headers.get("accept-language", "")
        body = pages.donate_page(drive, creators, _query(request), token, accept_language=language)
        return Answer(200, pages.page_headers("donate"), body)

    def _thanks(self, request: Request, drive: Drive, _: list[Drive]) -> Answer:
        language = request.headers.get("accept-language", "")
        return Answer(
            200,
            pages.page_headers("thanks"),
            pages.thanks_page(drive, _query(request), accept_language=language),
        )

    async def _find(self, ref: str) -> tuple[Drive | None, list[Drive]]:
        """The drive and its creators, at most two seconds old; raises `PeerUnavailable`."""
        now = asyncio.get_running_loop().time()
        held = self._drives.get(ref)
        if held is not None and now < held[0]:
            return held[1], held[2]
        with self._lane:
            reply = await ask(self._pledges, self._secret, "/internal/drives", {"refs": [ref]})
            drive: Drive | None = reply["data"].get(ref)
            creators = [] if drive is None else await self._creators(drive["id"])
        self._drives[ref] = (now + DRIVE_CACHE_S, drive, creators)
        self._drives.move_to_end(ref)
        while len(self._drives) > MOST_CACHED:
            self._drives.popitem(last=False)
        return drive, creators

    async def _creators(self, drive_id: str) -> list[Drive]:
        creators: list[Drive] = []
        query = "limit=100"
        while len(creators) < MOST_CREATORS:
            path = f"/v1/drives/{drive_id}/creators"
            reply = await self._pledges.request("GET", path, headers=self._reader.signed, query=query)
            if reply.status != 200:
                raise PeerUnavailable(f"{path} answered {reply.status}")
            page = reply.json()
            creators += page["data"]
            if page["next"] is None:
                break
            query = f"limit=100&after={page['next']}"
        return creators


def _query(request: Request) -> Mapping[str, str]:
    return dict(parse_qsl(request.query[:2000]))


async def _assets(request: Request) -> AsgiReply:
    return AsgiReply(pages.assets_app)


async def _to_icon(request: Request) -> Answer:
    # What browsers ask for where a page names no icon: plain JSON, for example.
    return Answer(307, [(b"location", pages.asset_url("mark.svg").encode())])


async def _to_docs(request: Request) -> Answer:
    return Answer(307, [(b"location", b"/docs")])
