"""Payments without its workers: a database, to which the test applies events and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from backbone.clock import FrozenClock
from backbone.contracts import Event, PaymentChanged, decode
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from services.payments.app import MIGRATIONS
from services.payments.checkout.worker import CheckoutWorker
from services.payments.handlers import HANDLERS
from services.payments.processor import Processor
from services.payments.recording import ledger
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import MESSAGING_TABLES, PAYMENTS, POSTINGS
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.receive import WebhookStore
from tests.engines import BUSY_TIMEOUT_S
from tests.migrated import place
from tests.payments.harness import SECRET, Pledges, a_drive, a_pledge
from tests.payments.stripe_events import as_stored, intent_succeeded, metadata
from tests.rounds import apply_waiting


@dataclass
class Books:
    """A payments database, and the operations on it."""

    database: Database
    clock: FrozenClock
    store: WebhookStore
    applier: Applier

    async def consume(self, *events: Event) -> None:
        """Handle events of pledges in one transaction."""
        async with self.database.transaction() as session:
            for event in events:
                await HANDLERS[type(event)]([event], session)

    async def apply(self, events: Sequence[dict[str, Any]]) -> None:
        """Store webhooks and apply all waiting ones as one batch."""
        await self.store.keep_all([as_stored(event) for event in events])
        await apply_waiting(self.applier)

    async def paid_pledge(self, units: int = 2_500, pledged: int | None = None) -> str:
        """Make a pledge (of `pledged`, else of the same amount) and pay `units` by the payment intent `pi_1`;
        returns the pledge's id.
        """
        drive = a_drive()
        pledge = a_pledge(drive, pledged or units)
        await self.consume(drive, pledge)
        await self.apply([intent_succeeded("pi_1", units, metadata(None, pledge.pledge_id, drive.drive_id))])
        return pledge.pledge_id

    def checkout_worker(self, processor: Processor) -> CheckoutWorker:
        """A worker that opens the checkouts of these books."""
        return CheckoutWorker(
            self.database, processor, InProcessServiceClient(Pledges().app), SECRET,
            rate_limiter=RateLimiter(0), in_flight=8, news=asyncio.Event(), clock=self.clock,
        )  # fmt: skip

    @asynccontextmanager
    async def opening_checkouts(self, processor: Processor) -> AsyncIterator[None]:
        """Run a checkout worker within the block; fails if it ends before the block does."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.checkout_worker(processor).run(stop))
        try:
            yield
            assert not task.done()
        finally:
            stop.set()
            await task

    async def payments(self, pledge: str) -> list[Any]:
        """The rows of a pledge's payments, in the order of their captures."""
        statement = select(PAYMENTS).where(PAYMENTS.c.pledge_id == pledge).order_by(PAYMENTS.c.capture_index)
        async with self.database.reading() as session:
            return list((await session.execute(statement)).all())

    async def opened(self, pledge: str, session_id: str) -> str:
        """Mark a pledge's checkout as opened as `session_id`; returns the payment's id."""
        async with self.database.transaction() as session:
            await session.execute(
                update(PAYMENTS)
                .where(PAYMENTS.c.pledge_id == pledge)
                .values(session_id=session_id, checkout="open")
            )
        payment: str = (await self.payments(pledge))[0].id
        return payment

    async def balances(self, payment: str) -> dict[str, int]:
        """The ledger's balances of a payment by account: debits less credits."""
        return await self._balances(POSTINGS.c.payment_id == payment)

    async def drive_balances(self, drive: str) -> dict[str, int]:
        """The ledger's balances of a drive by account: debits less credits."""
        return await self._balances(POSTINGS.c.drive_id == drive)

    async def _balances(self, those: Any) -> dict[str, int]:
        statement = select(POSTINGS).where(those)
        found: dict[str, int] = {}
        async with self.database.reading() as session:
            for row in await session.execute(statement):
                found[row.debit] = found.get(row.debit, 0) + row.units
                found[row.credit] = found.get(row.credit, 0) - row.units
        return {account: units for account, units in found.items() if units}

    async def published(self, pledge: str) -> list[PaymentChanged]:
        """The announcements of a pledge's payments, in order."""
        outbox = MESSAGING_TABLES.outbox
        async with self.database.reading() as session:
            rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
        events = [decode(row.name, row.value) for row in rows]
        return [each for each in events if isinstance(each, PaymentChanged) and each.pledge_id == pledge]

    async def drift(self) -> dict[str, int]:
        return dict((await self.database.read_whole(ledger.compare)).drift)


@asynccontextmanager
async def open_books(folder: Path, url: str = "", ours: OurAccount | None = None) -> AsyncIterator[Books]:
    """An empty payments database in `folder`, or the one at `url`; `ours` defaults to `OurAccount()`."""
    place("services.payments", folder, {"database_url_payments": url})
    database = Database(
        url or f"sqlite:///{folder / 'payments.db'}",
        MESSAGING_TABLES,
        synchronous="OFF",
        timeout_s=BUSY_TIMEOUT_S,
    )
    await database.migrate(MIGRATIONS)
    clock = FrozenClock()
    store = WebhookStore(database, clock)
    yield Books(database, clock, store, Applier(database, store, clock, ours or OurAccount()))
    await database.close()
