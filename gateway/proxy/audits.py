"""The newest audit of a drive: the reply of payments, cached for a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from backbone.http.service_client import ServiceResponse
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.conditional import not_modified
from gateway.http.router import Route
from gateway.overload.proof_limit import ProofLimit
from gateway.proxy.forwarding import Forwarder, response_of

CACHE_S: Final = 1.0
MAX_CACHED: Final = 1_000


class Audits:
    """Public reads without an API key; each drive is read from the service at most once a second."""

    def __init__(self, forwarder: Forwarder, limit: ProofLimit) -> None:
        self._forwarder = forwarder
        self._limit = limit
        self._cache: OrderedDict[str, tuple[float, ServiceResponse]] = OrderedDict()
        self._reads: dict[str, asyncio.Task[ServiceResponse]] = {}

    def routes(self) -> list[Route]:
        """The audit of a drive."""
        return [Route("GET", "/v1/drives/{drive}/audit", self.read, "live")]

    async def read(self, request: Request) -> Response:
        """The reply of payments, at most a second old; concurrent requests share one read.

        Raises `TooManyRequests`, `Overloaded` past the limit of concurrent reads, and `ServiceUnavailable`.
        """
        self._forwarder.limits.spend(self._forwarder.key_ring.public, request.address)
        now = asyncio.get_running_loop().time()
        cached = self._cache.get(request.path)
        if cached is not None and now - cached[0] < CACHE_S:
            return _cacheable(request, cached[1])
        task = self._reads.get(request.path)
        if task is None:
            self._limit.check()
            task = self._reads[request.path] = asyncio.create_task(self._read(request))
        reply = await asyncio.shield(task)
        if reply.status != 200:
            return response_of(reply)
        self._cache[request.path] = (now, reply)
        self._cache.move_to_end(request.path)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return _cacheable(request, reply)

    async def _read(self, request: Request) -> ServiceResponse:
        forwarder = self._forwarder
        try:
            with self._limit:
                return await forwarder.forward(request, "payments", forwarder.key_ring.public)
        finally:
            del self._reads[request.path]


def _cacheable(request: Request, reply: ServiceResponse) -> Response:
    etag = f'W/"{blake2b(reply.body, digest_size=12).hexdigest()}"'
    headers: list[Header] = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=1, s-maxage=1"),
    ]
    return not_modified(request, etag, headers) or json_response(reply.body, headers=headers)
