"""The clients that payments refuses for now (services/payments/screening), as this process knows them.

Every process asks payments each second for the refusals added since. While payments does not answer, those
that are known go on until they end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import Gauge

from backbone.clock import Clock
from backbone.http.caller import sign_caller
from backbone.http.problems import TooManyRequests
from backbone.http.service_client import ServiceClient, ServiceUnavailable
from backbone.wakeups import wait_for
from gateway.access.limits import count_refused

POLL_S: Final = 1.0
PAGE: Final = 1_000
POLICY: Final = '"declines";q=3;w=3600'
"""Declined tries that most clients may have in an hour while cards are tested."""

log = structlog.get_logger()
_KNOWN: Final = Gauge("ataa_gateway_refused_clients", "Clients that this process refuses.")


class RefusedClients:
    """Refuses pledges of clients with too many declined cards."""

    def __init__(self, payments: ServiceClient, secret: str, clock: Clock) -> None:
        self._payments = payments
        self._secret = secret
        self._clock = clock
        self._until: dict[str, float] = {}
        self._number = 0

    def check(self, names: Iterable[str]) -> None:
        """Raises `TooManyRequests`, with the seconds to wait, for a client that is refused."""
        if not self._until:
            return
        now = self._clock.now().timestamp()
        left_s = max((self._until.get(name, now) - now for name in names), default=0.0)
        if left_s > 0:
            wait_s = math.ceil(left_s)
            count_refused("declines")
            raise TooManyRequests(
                "Too many cards were declined. Try again later, or from another network.",
                headers={
                    "Retry-After": str(wait_s),
                    "RateLimit": f'"declines";r=0;t={wait_s}',
                    "RateLimit-Policy": POLICY,
                },
            )

    async def keep_fresh(self, stop: asyncio.Event) -> None:
        """Read new refusals each second until `stop`."""
        while not stop.is_set():
            try:
                while await self.refresh() == PAGE:
                    pass
            except ServiceUnavailable as error:
                log.info("refused_clients.unavailable", reason=str(error)[:200])
            await wait_for(stop, POLL_S)

    async def refresh(self) -> int:
        """Read the next refusals; how many. Raises `ServiceUnavailable`."""
        headers = sign_caller(self._secret, partner="ataa", scopes=("internal",))
        reply = await self._payments.request(
            "GET", "/internal/refused-clients", headers=headers, query=f"after={self._number}"
        )
        if reply.status != 200:
            raise ServiceUnavailable(f"/internal/refused-clients answered {reply.status}")
        rows: list[dict[str, Any]] = reply.json()
        for row in rows:
            self.refuse(row["client"], datetime.fromisoformat(row["until"]).timestamp())
            self._number = row["number"]
        self._forget()
        return len(rows)

    def refuse(self, client: str, until: float) -> None:
        """Refuse a client until a time (Unix seconds)."""
        self._until[client] = max(until, self._until.get(client, until))

    def _forget(self) -> None:
        now = self._clock.now().timestamp()
        self._until = {client: until for client, until in self._until.items() if until > now}
        _KNOWN.set(len(self._until))
