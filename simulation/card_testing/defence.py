"""The code under test, wired without databases: the gateway's screening, and that of payments.

What is simulated is only the time between the parts: Stripe's webhooks, the worker's interval, the gateway's
polls, and the call that expires a checkout.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backbone.database.database import Database
from backbone.http.client_header import CLIENT_HEADER
from backbone.http.problems import TooManyRequests
from backbone.http.service_client import ServiceResponse
from gateway.access.keys import bearer
from gateway.access.limits import RateLimit, RateLimits
from gateway.screening.client_groups import ClientGroups
from gateway.screening.pledge_screening import PledgeScreening
from gateway.screening.refused_clients import RefusedClients
from gateway.settings import GatewaySettings
from gateway.tables import MESSAGING_TABLES
from services.payments.screening.domain import Screening, Try, is_small, is_to_be_held

DRIVE: Final = "drv_01frtz5n00000000000000000a"
_DAY_S: Final = 86_400


class VirtualClock:
    """The time of the simulation, in Unix seconds."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def seconds(self) -> float:
        """A monotonic clock."""
        return self.at


class _NoService:
    """The payments service is not asked: refusals are passed on by `Defence.publish`."""

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        return ServiceResponse(200, {}, b"[]")


class Defence:
    """Admits pledges, and learns of tries; with `on` False it admits everything and decides nothing."""

    def __init__(self, clock: VirtualClock, *, on: bool) -> None:
        self._clock = clock
        self._on = on
        self._bearer = bearer("secret", "publishable", partner="default", scopes=frozenset({"pledges"}))
        settings = GatewaySettings()
        per_s = settings.limit_pledges_address_per_min / 60
        never = RateLimit("unused", 1e9, 1.0, clock.seconds)
        limits = RateLimits(never, never, RateLimit("pledges", per_s, 60.0, clock.seconds), never)
        groups = ClientGroups(Database(f"sqlite:///{Path('unused.db')}", MESSAGING_TABLES), clock)
        groups.keys = {int(clock.at) // _DAY_S: b"k" * 32}
        self._refused = RefusedClients(_NoService(), "secret", clock)
        self._gateway = PledgeScreening(limits, groups, self._refused)
        self.screening = Screening()
        self._unpublished: list[tuple[str, float]] = []

    def admit(self, address: str) -> str | None:
        """The client's name; raises `TooManyRequests`."""
        if not self._on:
            return None
        return self._gateway.admit(self._bearer, address).get(CLIENT_HEADER)

    def is_held(self, client: str | None, dollars: int) -> bool:
        """Whether a gift that is captured now is held."""
        if client is None:
            return False
        return is_to_be_held(
            *self.screening.counts(client, self._clock.at),
            small=is_small(dollars * 100, "USD"),
            under_attack=self.screening.under_attack(DRIVE),
        )

    def note(
        self, payment: str, client: str | None, card: str | None, dollars: int, *, declined: bool
    ) -> None:
        """A webhook reports a try."""
        small = is_small(dollars * 100, "USD")
        self.screening.note(Try(self._clock.at, payment, DRIVE, client, card, declined, small))

    def step(self) -> set[str]:
        """The worker's step; the payments whose checkouts are to be expired."""
        if not self._on:
            return set()
        decisions = self.screening.check(self._clock.at)
        self._unpublished += [(each.client, each.until) for each in decisions.refused]
        return decisions.exhausted

    def publish(self) -> None:
        """The gateway's poll."""
        for client, until in self._unpublished:
            self._refused.refuse(client, until)
        self._unpublished.clear()


__all__ = ["DRIVE", "Defence", "TooManyRequests", "VirtualClock"]
