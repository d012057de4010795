"""Reads of a drive that need no key and are forwarded unchanged."""

from __future__ import annotations

from typing import Final

from gateway.http.asgi import Request, Response
from gateway.http.router import Handler, Route
from gateway.proxy.forwarding import Forwarder, response_of

PUBLIC_READS: Final = {
    "/v1/drives/{drive}/contributions": "payments",
    "/v1/drives/{drive}/disbursements": "payments",
}
"""The service that answers each; it states how long the reply may be cached."""


class PublicReads:
    """Forwards them within the limit per address and that of concurrent reads."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def routes(self) -> list[Route]:
        """The routes, which any origin may read."""
        return [
            Route("GET", pattern, self._handler(service), "live") for pattern, service in PUBLIC_READS.items()
        ]

    def _handler(self, service: str) -> Handler:
        forwarder = self._forwarder

        async def handle(request: Request) -> Response:
            public = forwarder.key_ring.public
            forwarder.limits.spend(public, request.address)
            with forwarder.concurrency_limits["reads"]:
                return response_of(await forwarder.forward(request, service, public))

        return handle
