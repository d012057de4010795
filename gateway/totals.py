"""Live reads from memory: `/v1/drives/{drive}/totals`, `/v1/totals` and the stream."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from backbone.peer import Peer
from backbone.problems import Invalid, NotFound, Overloaded
from gateway.asgi import Answer, Header, Request, json_answer
from gateway.keys import Bearer
from gateway.limits import Lane
from gateway.live import Hub, View
from gateway.proxy import Limits
from gateway.router import Route
from gateway.stream import LiveStream

MOST_DRIVES: Final = 50
_CACHE: Final[Header] = (
    b"cache-control", b"public, max-age=1, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
)  # fmt: skip
_JSON: Final[Header] = (b"content-type", b"application/json")
_VARY: Final[Header] = (b"vary", b"Accept-Encoding")
_GZIPPED: Final[Header] = (b"content-encoding", b"gzip")


class LiveReads:
    """Everybody may read them, without a key."""

    def __init__(
        self, hub: Hub, leaderboard: Peer, public: Bearer, limits: Limits, lookups: Lane, clients: int
    ) -> None:
        self._hub = hub
        self._leaderboard = leaderboard
        self._public = public
        self._limits = limits
        self._lookups = lookups
        self._clients = clients
        self.draining = False

    def routes(self) -> list[Route]:
        """The live reads."""
        return [
            Route("GET", "/v1/drives/{drive}/totals", self.one, "live"),
            Route("GET", "/v1/totals", self.several, "live"),
            Route("GET", "/v1/drives/{drive}/live", self.stream, "live"),
        ]

    async def view(self, ref: str) -> View:
        """The drive of this id or slug; raises `NotFound`, and `Overloaded` before the start is done."""
        if not self._hub.bootstrapped:
            raise Overloaded("The figures are still being read.")
        view = self._hub.known(ref)
        if view is None or view.bare:
            with self._lookups:
                view = await self._hub.find(ref)
        if view is None:
            raise NotFound("No such drive.")
        return view

    async def one(self, request: Request) -> Answer:
        """A drive's totals, from memory."""
        view = await self.view(request.params[0])
        state = self._hub.state(view)
        etag = view.etag(state)
        headers = [_JSON, (b"etag", etag.encode()), _CACHE, _VARY]
        if _matches(request.headers.get("if-none-match"), etag):
            return Answer(304, headers[1:])
        if _takes_gzip(request.headers.get("accept-encoding")):
            return Answer(200, [*headers, _GZIPPED], view.bytes("gzip", state, self._hub))
        return Answer(200, headers, view.bytes("full", state, self._hub))

    async def several(self, request: Request) -> Answer:
        """The totals of up to 50 drives, without leaders and recent."""
        asked = dict(parse_qsl(request.query)).get("drives", "")
        refs = list(dict.fromkeys(ref for ref in asked.split(",") if ref))
        if not 0 < len(refs) <= MOST_DRIVES:
            detail = f"Name 1 to {MOST_DRIVES} drives, separated by commas."
            raise Invalid(detail, errors=[{"pointer": "/query/drives", "detail": detail}])
        views = [await self.view(ref) for ref in refs]
        shown = [view.bytes("brief", self._hub.state(view), self._hub) for view in views]
        return json_answer(b'{"data":[' + b",".join(shown) + b"]}", headers=[_CACHE])

    async def stream(self, request: Request) -> LiveStream:
        """A drive's live stream."""
        view = await self.view(request.params[0])
        self._limits.spend(self._public, request.address)
        if self.draining or self._hub.clients >= self._clients:
            raise Overloaded("No more streams here at the moment.", retry_after_s=2)
        # EventSource cannot set a header on a connection that it did not lose itself.
        last = request.headers.get("last-event-id") or dict(parse_qsl(request.query)).get("last_event_id")
        return LiveStream(self._hub, view, self._leaderboard, self._public.signed, last)


def _matches(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, 13.1.2: weak comparison, a list, or `*`."""
    return if_none_match is not None and (etag[2:] in if_none_match or if_none_match.strip() == "*")


def _takes_gzip(accept_encoding: str | None) -> bool:
    if not accept_encoding or "gzip" not in accept_encoding:
        return False
    return not any(
        part.replace(" ", "") in ("gzip;q=0", "gzip;q=0.0", "gzip;q=0.00", "gzip;q=0.000")
        for part in accept_encoding.split(",")
    )
