"""HTTP clients of the services, with separate connection pools for each class of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backbone.http.service_client import HttpServiceClient, ServiceClient, ServiceClientPools, ServiceResponse
from gateway.settings import GatewaySettings

INTAKE: Final = 256
"""Connections for pledges and webhooks. Further requests wait here, so a service's batches stay smaller."""

INTERNAL: Final = 16
"""Connections for the gateway's internal requests, which are batched."""

OTHER: Final = 100


class PooledServiceClient:
    """A client of one service: pledges and webhooks, internal requests, and all others in separate pools."""

    def __init__(self, pools: ServiceClientPools, url: str) -> None:
        self._intake = pools.to(url, INTAKE)
        self._internal = pools.to(url, INTERNAL)
        self._other = pools.to(url, OTHER)

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """See `ServiceClient.request`."""
        client = self._client_for(method, path)
        return await client.request(method, path, headers=headers, body=body, query=query)

    def _client_for(self, method: str, path: str) -> HttpServiceClient:
        if path.startswith("/internal/"):
            return self._internal
        is_intake = method == "POST" and (path.endswith("/pledges") or path.startswith("/webhooks/"))
        return self._intake if is_intake else self._other


def service_clients_of(settings: GatewaySettings, pools: ServiceClientPools) -> dict[str, ServiceClient]:
    """The clients of the four services at the URLs of the settings."""
    return {
        "pledges": PooledServiceClient(pools, settings.url_pledges),
        "payments": PooledServiceClient(pools, settings.url_payments),
        "leaderboard": PooledServiceClient(pools, settings.url_leaderboard),
        "notify": PooledServiceClient(pools, settings.url_notify),
    }
