"""The routes of the console. Every change goes through the service that the API's own route goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from backbone.clock import Clock
from gateway.access.sessions import Sessions
from gateway.console.client import ServiceCalls
from gateway.console.creators import CreatorPages
from gateway.console.drives import DrivePages
from gateway.console.funnel_page import FunnelPage
from gateway.console.ledger_pages import LedgerPages
from gateway.console.matching_page import MatchingPage
from gateway.console.money_page import MoneyPage
from gateway.console.payment_page import PaymentPage
from gateway.console.proposal_kinds import BENEFICIARIES, CONTRIBUTIONS, OFFLINE, Owed, Sums
from gateway.console.proposals import ProposalPage
from gateway.console.rates_page import RATES, RatesPage
from gateway.console.records import RecordPages
from gateway.console.refund_page import LargeRefundPage
from gateway.console.visit import Visit, pages_of
from gateway.http.asgi import Response
from gateway.http.router import Route, page_routes
from gateway.live.hub import Hub
from gateway.proxy.waits import BatchLookup
from gateway.reach.funnel import Funnel

Shown = dict[str, Callable[[Visit], Awaitable[Response]]]


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
        self._ledger = LedgerPages(calls)
        self._matching = MatchingPage(calls)
        self._payment = PaymentPage(calls)
        self._large_refunds = LargeRefundPage(calls)
        self._rates = RatesPage(calls, clock)
        self._proposals = {
            kind.page: ProposalPage(calls, kind, more)
            for kind, more in (
                (OFFLINE, None),
                (CONTRIBUTIONS, Sums(calls).of),
                (BENEFICIARIES, Owed(calls).of),
            )
        }

    def routes(self) -> list[Route]:
        """Pages to read, and the forms that they post."""
        handler_of, drives, records = self._handler_of, self._drives, self._records
        reads: Shown = {
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
        changes: Shown = {
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
        pages, posts, tables = self._money_routes()
        reads |= pages
        changes |= posts
        shown = [route for path, show in reads.items() for route in page_routes(path, handler_of(show))]
        return [
            *shown,
            *(Route("GET", path, handler_of(show)) for path, show in tables.items()),
            *(Route("POST", path, handler_of(change)) for path, change in changes.items()),
        ]

    def _money_routes(self) -> tuple[Shown, Shown, Shown]:
        """The pages of money by path, what is posted to them, and the tables to download."""
        ledger, matching, payment = self._ledger, self._matching, self._payment
        drive = "/console/drives/{drive}"
        pages: Shown = {
            f"{drive}/matching": matching.show,
            f"{drive}/ledger": ledger.ledger,
            f"{drive}/statement": ledger.statement,
            "/console/payouts": ledger.payouts,
            RATES: self._rates.show,
            "/console/payments": payment.find,
            "/console/payments/{payment}": payment.show,
            "/console/refunds": self._large_refunds.show,
        }
        posts: Shown = {
            f"{drive}/matching": matching.create,
            f"{drive}/matching/end": matching.end,
            RATES: self._rates.set,
            "/console/payments/{payment}/refunds": payment.refund,
            "/console/payments/{payment}/release": payment.release,
            "/console/refunds": self._large_refunds.decide,
        }
        for name, proposals in self._proposals.items():
            pages[f"{drive}/{name}"] = proposals.show
            posts[f"{drive}/{name}"] = proposals.record
            posts[f"{drive}/{name}/decide"] = proposals.decide
        tables: Shown = {
            f"{drive}/ledger.csv": ledger.ledger_csv,
            f"{drive}/trial-balance.csv": ledger.trial_balance_csv,
            f"{drive}/statement.csv": ledger.statement_csv,
            "/console/payouts.csv": ledger.payouts_csv,
        }
        return pages, posts, tables
