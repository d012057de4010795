"""The routes of the console. Every change goes through the service that the API's own route goes through."""

from __future__ import annotations

from backbone.clock import Clock
from gateway.access.sessions import Sessions
from gateway.console.client import ServiceCalls
from gateway.console.creators import CreatorPages
from gateway.console.drives import DrivePages
from gateway.console.funnel_page import FunnelPage
from gateway.console.money_page import MoneyPage
from gateway.console.records import RecordPages
from gateway.console.visit import pages_of
from gateway.http.router import Route, page_routes
from gateway.live.hub import Hub
from gateway.proxy.waits import BatchLookup
from gateway.reach.funnel import Funnel


class Console:
    """The pages under `/console`."""

    def __init__(
        self,
        sessions: Sessions,
        calls: ServiceCalls,
        checkouts: BatchLookup,
        hub: Hub,
        funnel: Funnel,
        clock: Clock,
    ) -> None:
        self._handler_of = pages_of(sessions)
        self._drives = DrivePages(calls, hub, clock)
        self._creators = CreatorPages(calls)
        self._funnel = FunnelPage(calls, funnel, clock)
        self._money = MoneyPage(calls)
        self._records = RecordPages(calls, checkouts)

    def routes(self) -> list[Route]:
        """Pages to read, and the forms that they post."""
        handler_of, drives, records = self._handler_of, self._drives, self._records
        reads = {
            "/console": drives.list_all,
            "/console/new": drives.new,
            "/console/drives/{drive}": drives.show,
            "/console/drives/{drive}/edit": drives.edit,
            "/console/drives/{drive}/funnel": self._funnel.show,
            "/console/drives/{drive}/pledges": records.list_pledges,
            "/console/drives/{drive}/money": self._money.show,
            "/console/keys": records.list_keys,
            "/console/webhooks": records.list_webhooks,
        }
        changes = {
            "/console/new": drives.create,
            "/console/drives/{drive}/edit": drives.change,
            "/console/drives/{drive}/state": drives.transition,
            "/console/drives/{drive}/creators": self._creators.add,
            "/console/drives/{drive}/refunds": records.refund,
            "/console/drives/{drive}/money/release": self._money.release,
            "/console/drives/{drive}/money/refunds": self._money.give_back,
            "/console/keys": records.create_key,
            "/console/keys/revoke": records.revoke_key,
            "/console/webhooks/retry": records.retry_webhook,
        }
        shown = [route for path, show in reads.items() for route in page_routes(path, handler_of(show))]
        return [*shown, *(Route("POST", path, handler_of(change)) for path, change in changes.items())]
