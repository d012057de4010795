"""Leaderboards, donations and drive logs: replies of the leaderboard service, cached for a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Final
from urllib.parse import parse_qsl

from backbone.clock import rfc3339
from backbone.http.service_client import ServiceResponse
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.conditional import not_modified
from gateway.http.router import Cors, Route
from gateway.overload.ladder import Step
from gateway.overload.shedding import Shedding
from gateway.proxy.forwarding import NO_HEADERS, Forwarder, response_of

CACHE_S: Final = 1.0
SHED_CACHE_S: Final = 10.0
"""How old a board may be while boards give way under overload; its `as_of` tells its age. Lists of donations
have messages that a moderator may have hidden meanwhile, and are never older than `CACHE_S`."""
MAX_CACHED: Final = 1000
_SHED_READS: Final = {Step.RECENT: "Lists of donations", Step.BOARDS: "Boards of donors and of windows"}


class Leaderboards:
    """Public reads without an API key; each URL is read from the service at most once a second."""

    def __init__(
        self, forwarder: Forwarder, as_of: Callable[[str], datetime | None], shedding: Shedding
    ) -> None:
        self._forwarder = forwarder
        self._shedding = shedding
        self._as_of = as_of
        self._cache: OrderedDict[str, tuple[float, ServiceResponse]] = OrderedDict()
        self._reads: dict[str, asyncio.Task[ServiceResponse]] = {}

    def routes(self) -> list[Route]:
        """The leaderboards, the donations and the log of a drive."""
        live: Cors = "live"
        return [
            Route("GET", "/v1/drives/{drive}/leaderboards/{board}", self.read, live),
            Route("GET", "/v1/drives/{drive}/donations", self.read, live),
            Route("GET", "/v1/drives/{drive}/events", self.read, live),
        ]

    async def read(self, request: Request) -> Response:
        """The leaderboard service's reply, at most a second old.

        Raises `TooManyRequests`, `Overloaded` past the limit of concurrent reads, and `ServiceUnavailable`.
        """
        self._forwarder.limits.spend(self._forwarder.key_ring.public, request.address)
        key = f"{request.path}?{request.query}"
        now = asyncio.get_running_loop().time()
        cached = self._cache.get(key)
        step = step_of(request)
        is_shed = step is Step.BOARDS and self._shedding.sheds(step)
        if cached is not None and now - cached[0] < (SHED_CACHE_S if is_shed else CACHE_S):
            return _cacheable(request, cached[1])
        if step is not None:
            self._shedding.refuse(step, _SHED_READS[step])
        reply = await self._read_once(key, request)
        if reply.status != 200:
            return response_of(reply)
        self._store(key, reply)
        return _cacheable(request, reply)

    def _store(self, key: str, reply: ServiceResponse) -> None:
        self._cache[key] = (asyncio.get_running_loop().time(), reply)
        self._cache.move_to_end(key)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def _read_once(self, key: str, request: Request) -> ServiceResponse:
        """Concurrent requests for the same URL share one read."""
        task = self._reads.get(key)
        if task is None:
            # Refuse before a task exists that others could join.
            self._forwarder.concurrency_limits["reads"].check()
            task = self._reads[key] = asyncio.create_task(self._read(key, request))
        return await asyncio.shield(task)

    async def _read(self, key: str, request: Request) -> ServiceResponse:
        # A replica of leaderboard knows the freshness of its own partitions only; the gateway knows all.
        as_of = self._as_of(request.params[0])
        freshness = {"ataa-as-of": rfc3339(as_of)} if as_of is not None else NO_HEADERS
        forwarder = self._forwarder
        try:
            with forwarder.concurrency_limits["reads"]:
                return await forwarder.forward(
                    request, "leaderboard", forwarder.key_ring.public, extra_headers=freshness
                )
        finally:
            del self._reads[key]


def step_of(request: Request) -> Step | None:
    """From which step of the ladder this read gives way; None for boards over all time and for the log."""
    if request.path.endswith("/donations"):
        return Step.RECENT
    if request.path.endswith("/events"):
        return None
    window = dict(parse_qsl(request.query)).get("window", "all")
    return Step.BOARDS if window != "all" or request.params[1] == "donors" else None


def _cacheable(request: Request, reply: ServiceResponse) -> Response:
    # The service's ETag of a leaderboard names the drive's state; it stays the same while only `as_of` moves.
    etag = reply.headers.get("etag") or f'W/"{blake2b(reply.body, digest_size=12).hexdigest()}"'
    headers: list[Header] = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=1, s-maxage=1"),
    ]
    return not_modified(request, etag, headers) or json_response(reply.body, headers=headers)
