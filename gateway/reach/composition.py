"""The parts of this package, wired together."""

from __future__ import annotations

from collections.abc import Mapping

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.service_client import ServiceClient
from backbone.periodic import pruning_worker
from backbone.service import Worker
from gateway.http.router import Route
from gateway.live.hub import Hub
from gateway.live.totals import LiveReads
from gateway.proxy.forwarding import Forwarder
from gateway.reach.drawer import Drawer
from gateway.reach.funnel import Funnel
from gateway.reach.images import Images
from gateway.reach.lookups import Lookups
from gateway.reach.site import ReachSite
from gateway.reach.visits import Visits


class Reach:
    """The public pages, their images and the funnel: routes and workers."""

    def __init__(
        self,
        public_url: str,
        database: Database,
        clock: Clock,
        clients: Mapping[str, ServiceClient],
        secret: str,
        forwarder: Forwarder,
        live: LiveReads,
        hub: Hub,
    ) -> None:
        public = forwarder.key_ring.public
        limit = forwarder.concurrency_limits["lookups"]
        self._visits = Visits(database, clock)
        lookups = Lookups(clients["pledges"], clients["leaderboard"], secret, public, limit)
        site = ReachSite(lookups, live, hub, public_url)
        images = Images(site, Drawer(), public, forwarder.limits)
        self.funnel = Funnel(site, self._visits, forwarder, clients, secret, public_url, clock)
        self._routes = [*site.routes(), *images.routes(), *self.funnel.routes()]

    def routes(self) -> list[Route]:
        """All routes of the package."""
        return self._routes

    def workers(self) -> list[Worker]:
        """What stores the counts of views, and deletes old ones."""
        return [
            Worker("gateway.visits", self._visits.run),
            pruning_worker("gateway.reach", {"visits": self._visits.delete_old}),
        ]
