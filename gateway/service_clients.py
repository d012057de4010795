"""The services behind the gateway, each over connections of its own for every class of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backbone.http.service_client import HttpServiceClient, ServiceClient, ServiceClientPools, ServiceResponse
from gateway.settings import GatewaySettings

INTAKE: Final = 256
"""Pledges and webhooks on their way at once; more wait here, and a batch is never larger than this."""

INTERNAL: Final = 16
"""The gateway's own questions: one for all who wait, one for all drives."""

OTHER: Final = 100


class PooledServiceClient:
    """One service: what donors and Stripe send, what the gateway asks itself, and the rest, apart."""

    def __init__(self, pools: ServiceClientPools, url: str) -> None:
        self._intake = pools.to(url, INTAKE)
        self._internal = pools.to(url, INTERNAL)
        self._other = pools.to(url, OTHER)

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """See `ServiceClient.request`."""
        peer = self._client_for(method, path)
        return await peer.request(method, path, headers=headers, body=body, query=query)

    def _client_for(self, method: str, path: str) -> HttpServiceClient:
        if path.startswith("/internal/"):
            return self._internal
        is_intake = method == "POST" and (path.endswith("/pledges") or path.startswith("/webhooks/"))
        return self._intake if is_intake else self._other


def service_clients_of(settings: GatewaySettings, pools: ServiceClientPools) -> dict[str, ServiceClient]:
    """The four services at the addresses the settings name."""
    return {
        "pledges": PooledServiceClient(pools, settings.url_pledges),
        "payments": PooledServiceClient(pools, settings.url_payments),
        "leaderboard": PooledServiceClient(pools, settings.url_leaderboard),
        "notify": PooledServiceClient(pools, settings.url_notify),
    }
