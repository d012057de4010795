"""Live reads, answered from memory: `/v1/drives/{drive}/totals`, `/v1/totals` and the live stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from backbone.http.problems import Invalid, NotFound, Overloaded
from gateway.access.keys import Bearer
from gateway.access.limits import ConcurrencyLimit, RateLimits
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.conditional import not_modified
from gateway.http.negotiation import accepts_gzip
from gateway.http.router import Route, is_name
from gateway.live.hub import Hub
from gateway.live.stream import LiveStream, LiveStreams
from gateway.live.view import DriveView
from gateway.overload.ladder import Step
from gateway.overload.shedding import Shedding

MAX_DRIVES: Final = 50
STREAM_WAIT_S: Final = 2.0
"""Longer than a process needs, once it is ready, to read the snapshots."""
PATTERN: Final = "/v1/drives/{drive}/totals"
CACHE: Final[Header] = (
    b"cache-control", b"public, max-age=1, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
)  # fmt: skip
JSON: Final[Header] = (b"content-type", b"application/json")
VARY: Final[Header] = (b"vary", b"Accept-Encoding")
GZIPPED: Final[Header] = (b"content-encoding", b"gzip")


class LiveReads:
    """Public reads without an API key."""

    def __init__(
        self,
        hub: Hub,
        public: Bearer,
        limits: RateLimits,
        lookups: ConcurrencyLimit,
        clients: int,
        shedding: Shedding,
    ) -> None:
        self._hub = hub
        self._streams = LiveStreams(hub)
        self._public = public
        self._limits = limits
        self._lookups = lookups
        self._clients = clients
        self._shedding = shedding
        self._waiting = 0
        self.draining = False

    def routes(self) -> list[Route]:
        """The totals of one drive and of several, and the live stream."""
        return [
            Route("GET", PATTERN, self.one, "live"),
            Route("GET", "/v1/totals", self.several, "live"),
            Route("GET", "/v1/drives/{drive}/live", self.stream, "live"),
        ]

    async def views(self, refs: Sequence[str], address: str) -> list[DriveView]:
        """The drives with these ids or slugs, with one request to pledges for all that have no snapshot.

        Raises `NotFound`, `Overloaded` until all snapshots have been read, and `TooManyRequests` for an
        address that causes too many lookups.
        """
        if not self._hub.bootstrapped:
            raise Overloaded("The figures are still being read.")
        if self._hub.lookups.are_needed(refs):
            self._limits.spend(self._public, address)
            with self._lookups:
                views = await self._hub.lookups.find(refs)
        else:
            views = await self._hub.lookups.find(refs)
        found = [view for view in views if view is not None]
        if len(found) != len(views):
            raise NotFound("No such drive.")
        return found

    async def one(self, request: Request) -> Response:
        """A drive's totals."""
        (view,) = await self.views(request.params[:1], request.address)
        freshness = self._hub.freshness
        state = freshness.state(view)
        etag = view.etag(state, freshness.step)
        headers: list[Header] = [(b"etag", etag.encode()), CACHE, VARY]
        if unchanged := not_modified(request, etag, headers):
            return unchanged
        if accepts_gzip(request.headers.get("accept-encoding")):
            return Response(200, [JSON, *headers, GZIPPED], view.bytes("gzip", state, freshness))
        return Response(200, [JSON, *headers], view.bytes("full", state, freshness))

    async def several(self, request: Request) -> Response:
        """The totals of up to 50 drives, without leaders and recent."""
        views = await self.views(_drives_in(request.query), request.address)
        freshness = self._hub.freshness
        shown = [view.bytes("brief", freshness.state(view), freshness) for view in views]
        return json_response(b'{"data":[' + b",".join(shown) + b"]}", headers=[CACHE])

    async def stream(self, request: Request) -> LiveStream:
        """A drive's live stream, which waits for `STREAM_WAIT_S` at most after this process started.

        A browser's EventSource gives up at a response other than 200.
        """
        self._shedding.refuse(Step.STREAMS, "New live streams")
        await self._until_streaming()
        (view,) = await self.views(request.params[:1], request.address)
        self._limits.spend(self._public, request.address)
        if self.draining or self._hub.fan_out.clients >= self._clients:
            raise Overloaded("No more streams here at the moment.", retry_after_s=2)
        # A new EventSource cannot send Last-Event-ID; only one that reconnects does.
        last = request.headers.get("last-event-id") or dict(parse_qsl(request.query)).get("last_event_id")
        return LiveStream(self._streams, view, last)

    async def _until_streaming(self) -> None:
        if self._hub.streaming.is_set():
            return
        if self._waiting < self._clients:
            self._waiting += 1
            try:
                async with asyncio.timeout(STREAM_WAIT_S):
                    await self._hub.streaming.wait()
                    return
            except TimeoutError:
                pass
            finally:
                self._waiting -= 1
        raise Overloaded("The donations are not received yet.")


def _drives_in(query: str) -> list[str]:
    """The drives named by `?drives=a,b,c`.

    Raises `Invalid` for none or too many, `NotFound` for a name that no drive can have.
    """
    asked = dict(parse_qsl(query)).get("drives", "")
    refs = list(dict.fromkeys(ref for ref in asked.split(",") if ref))
    if not 0 < len(refs) <= MAX_DRIVES:
        detail = f"Name 1 to {MAX_DRIVES} drives, separated by commas."
        raise Invalid(detail, errors=[{"pointer": "/query/drives", "detail": detail}])
    if not all(map(is_name, refs)):
        raise NotFound("No such drive.")
    return refs
