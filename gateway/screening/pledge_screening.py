"""What a request to make a pledge must pass besides authentication: its address's limit, and no refusal."""

from __future__ import annotations

from collections.abc import Mapping

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.client_header import CLIENT_HEADER
from backbone.http.service_client import ServiceClient
from backbone.service import Worker
from gateway.access.keys import Bearer
from gateway.access.limits import RateLimits
from gateway.screening.client_groups import ClientGroups
from gateway.screening.refused_clients import RefusedClients


class PledgeScreening:
    """Admits pledges. Secret and admin keys are partners' servers: their address says nothing of a donor."""

    def __init__(self, limits: RateLimits, groups: ClientGroups, refused: RefusedClients) -> None:
        self._limits = limits
        self.groups = groups
        self._refused = refused

    def admit(self, bearer: Bearer, address: str) -> Mapping[str, str]:
        """The header that names the client to the services; raises `TooManyRequests`."""
        if bearer.kind in ("secret", "admin"):
            return {}
        self._limits.spend_pledge(bearer, address)
        names = self.groups.names(address)
        self._refused.check(names)
        return {CLIENT_HEADER: names[0]} if names else {}

    def workers(self) -> list[Worker]:
        """What keeps the names of clients and the refusals current."""
        return [
            Worker("gateway.client_keys", self.groups.keep_fresh),
            Worker("gateway.refused_clients", self._refused.keep_fresh),
        ]


def screen_pledges(
    database: Database, payments: ServiceClient, secret: str, limits: RateLimits, clock: Clock
) -> PledgeScreening:
    """The screening of a gateway with this database, which asks `payments` for refusals."""
    return PledgeScreening(limits, ClientGroups(database, clock), RefusedClients(payments, secret, clock))
