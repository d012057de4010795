"""The process under test with its database, the model beside it, and steps that may crash."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from sqlalchemy import select, text

from backbone.clock import FrozenClock
from backbone.contracts.pledges import Beneficiary
from backbone.http.problems import Problem
from backbone.http.service_client import InProcessServiceClient
from services.payments.app import MIGRATIONS
from services.payments.creator_lookup import CreatorLookup
from services.payments.disbursements.commands import Disbursements
from services.payments.drive_lookup import DriveLookup
from services.payments.holding.release import Releases
from services.payments.large_refunds.commands import LargeRefunds
from services.payments.large_refunds.threshold import Threshold
from services.payments.matching.commands import MatchingPools
from services.payments.offline.gifts import OfflineGifts
from services.payments.refunds import RefundService
from services.payments.tables import MESSAGING_TABLES, PAYMENTS
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.receive import WebhookStore
from tests.migrated import place
from tests.payments.books import Books
from tests.payments.harness import SECRET, Pledges, a_drive
from tests.payments.life.crashing import Crash, CrashingDatabase
from tests.payments.life.model import (
    OTHER,
    SHARES,
    TAKES_ZAKAT,
    Life,
)
from tests.payments.life.stripe_account import Account, RefundingProcessor, Told

T = TypeVar("T")

START = datetime(2026, 1, 7, 12, tzinfo=UTC)
PICKED = st.sampled_from([0, 0, 0, 1, 1, 2, 5])
"""Which one, counted from the newest: most steps are about the newest ones."""

UNITS = st.sampled_from([1, 500, 1_000, 2_500])
CRASHES = st.one_of(st.none(), st.none(), st.integers(1, 14))
ONE_KEY = 2_000
"""What one payment gives back in all by one key."""
MORE = st.sampled_from([0, 0, 0, 100])
TOLD = st.sampled_from([True, True, False])
"""Whether an event is delivered and applied at once. Otherwise `deliver` does it, or the end of the life."""

KNOWN_DRIVES = st.sampled_from([0, 0, 1])
PURPOSES = st.sampled_from([None, "zakat", "zakat", "sadaqah"])
DRIVES = st.sampled_from([0, 0, 0, 1, 2])
"""Two drives that are announced at the start, and one that is announced later or never."""


class Process(RuleBasedStateMachine):
    """Payments without its API and timers, a Stripe account, and the model. `attempt` does all work in it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.life = Life(read_rates=self.stored_rates)
        self.clock = FrozenClock(START)
        self.account = Account(self.clock)
        self.processor = RefundingProcessor(self.account)
        self.drives = [
            a_drive(
                slug=f"drive-{n}", partner="charity", changed_at=START,
                beneficiaries=[Beneficiary(name=name, share_bps=bps) for name, bps in SHARES.items()],
                currencies=[OTHER],
            )
            for n in range(3)
        ]  # fmt: skip
        self.pledges: list[Any] = []
        self.stored: list[Told] = []
        """Stored events that were not applied yet."""
        self.kept: set[str] = set()
        self.pools: list[str] = []
        self.gifts: list[str] = []
        self.disbursements: list[str] = []
        self.postings: list[Any] = []
        """The ledger as it was after the step before."""
        self.requests = 0
        self.rates_set = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        folder = Path(self.folder.name)
        place("services.payments", folder, {})
        url = f"sqlite:///{folder / 'payments.db'}"
        self.database = CrashingDatabase(url, MESSAGING_TABLES, synchronous="OFF")
        self.run(self.database.migrate(MIGRATIONS))
        self.start()
        for drive in (0, 1):
            self.announce_drive(drive)

    def start(self) -> None:
        """Start the process: nothing outlives it but the database."""
        database, clock = self.database, self.clock
        known = Pledges()
        known.drives = {
            each.drive_id: {"id": each.drive_id, "partner": "charity", "zakat_eligible": n in TAKES_ZAKAT}
            for n, each in enumerate(self.drives)
        }
        pledges = InProcessServiceClient(known.app)
        lookup, creators = DriveLookup(database, pledges, SECRET), CreatorLookup(pledges, SECRET)
        store = WebhookStore(database, clock)
        self.books = Books(database, clock, store, Applier(database, store, clock, OurAccount()))
        self.refund_service = RefundService(
            database, self.processor, clock, 1.0, lookup.owner_of, Threshold(ONE_KEY // 100)
        )
        self.large_refunds = LargeRefunds(database, lookup, self.refund_service, clock)
        self.releases = Releases(database, lookup, creators, clock)
        self.offline_gifts = OfflineGifts(database, lookup, creators, clock)
        self.paid_out = Disbursements(database, lookup, clock)
        self.matching = MatchingPools(database, lookup, creators, clock)

    def attempt(self, work: Coroutine[Any, Any, T], crash: int | None) -> tuple[int, T | Problem | None]:
        """Do `work` in a process that may crash in it: the transactions it committed, and its result."""
        self.clock.move(1)
        before = self.database.commits
        self.database.crash_at(crash)
        result: T | Problem | None = None
        try:
            result = self.run(work)
        except Problem as problem:
            result = problem
        except Crash:
            self.start()
        finally:
            self.database.crash_at(None)
        return self.database.commits - before, result

    def payment(self, picked: int) -> str | None:
        """The intent of a payment that payments knows."""
        known = list(self.life.captures)
        return known[-1 - picked % len(known)] if known else None

    def row(self, intent: str) -> Any:
        async def read() -> Any:
            async with self.database.reading() as session:
                return (await session.execute(select(PAYMENTS).where(PAYMENTS.c.intent == intent))).one()

        return self.run(read())

    def stored_rates(self) -> dict[str, str]:
        if all(each.currency != OTHER for each in self.life.captures.values()):
            return {}
        return dict(self.rows("SELECT intent, rate FROM payments WHERE rate IS NOT NULL"))

    def rows(self, statement: str) -> list[Any]:
        async def read() -> list[Any]:
            async with self.database.reading() as session:
                return list((await session.execute(text(statement))).all())

        return self.run(read())

    def announce_drive(self, drive: int, crash: int | None = None) -> None:
        committed, _ = self.attempt(self.books.consume(self.drives[drive]), crash)
        if committed:
            with self.life.transaction():
                self.life.drives.add(drive)

    def consume_pledge(self, number: int, crash: int | None = None) -> None:
        pledge = self.pledges[number]
        committed, _ = self.attempt(self.books.consume(pledge), crash)
        if committed:
            drive = next(n for n, each in enumerate(self.drives) if each.drive_id == pledge.drive_id)
            with self.life.transaction():
                self.life.pledged[number] = (drive, pledge.amount.minor_units, pledge.amount.currency)
                if pledge.purpose == "zakat":
                    self.life.zakat.add(number)
