"""The services behind the gateway, each over connections of its own for every class of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backbone.peer import HttpPeer, Peer, PeerPools, Reply
from gateway.settings import GatewaySettings

INTAKE: Final = 256
"""Pledges and webhooks on their way at once; more wait here, and a batch is never larger than this."""

QUESTIONS: Final = 16
"""The gateway's own questions: one for all who wait, one for all drives."""

THE_REST: Final = 100


class ByClass:
    """One service: what donors and Stripe send, what the gateway asks itself, and the rest, apart."""

    def __init__(self, pools: PeerPools, url: str) -> None:
        self._intake = pools.to(url, INTAKE)
        self._questions = pools.to(url, QUESTIONS)
        self._rest = pools.to(url, THE_REST)

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> Reply:
        """See `Peer.request`."""
        peer = self._peer(method, path)
        return await peer.request(method, path, headers=headers, body=body, query=query)

    def _peer(self, method: str, path: str) -> HttpPeer:
        if path.startswith("/internal/"):
            return self._questions
        is_intake = method == "POST" and (path.endswith("/pledges") or path.startswith("/webhooks/"))
        return self._intake if is_intake else self._rest


def peers_of(settings: GatewaySettings, pools: PeerPools) -> dict[str, Peer]:
    """The four services at the addresses the settings name."""
    return {
        "pledges": ByClass(pools, settings.url_pledges),
        "payments": ByClass(pools, settings.url_payments),
        "leaderboard": ByClass(pools, settings.url_leaderboard),
        "notify": ByClass(pools, settings.url_notify),
    }
