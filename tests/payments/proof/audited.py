"""Payments' and leaderboard's databases with the audit between them; the test says when events move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from backbone.contracts import DriveChanged, Event, decode
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from backbone.service import new_app
from services.leaderboard.audit_api import audit_routes
from services.leaderboard.handlers import HANDLERS as COUNTING
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.proof.state import AuditState
from services.payments.proof.steps import Audit
from services.payments.proof.worker import Auditor
from services.payments.tables import MESSAGING_TABLES
from tests.engines import fresh_postgres
from tests.leaderboard.builders import open_database
from tests.payments.books import Books, open_books
from tests.payments.harness import SECRET, Pledges, a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata


class Complete:
    """Leaderboard's freshness: nothing is known unless the test sets it."""

    moment: datetime | None = None

    def of(self, partition: int) -> datetime | None:
        return self.moment


@dataclass
class Audited:
    """Both databases, a live drive, and the audit of it."""

    books: Books
    board: Database
    audit: Audit
    auditor: Auditor
    drive: DriveChanged
    complete: Complete = field(default_factory=Complete)
    behind: int = 0

    @property
    def known(self) -> KnownDrive:
        return KnownDrive(self.drive.drive_id, "winter", self.drive.currency, "live", False, "default")

    async def pay(self, intent: str, units: int = 2_500, **pledge: Any) -> str:
        """Pay a new pledge; returns its payment's id."""
        made = a_pledge(self.drive, units, **pledge)
        await self.books.consume(made)
        await self.count(made)
        ours = metadata(None, made.pledge_id, self.drive.drive_id)
        await self.books.apply([intent_succeeded(intent, units, ours)])
        return (await self.books.payments(made.pledge_id))[0].id

    async def count(self, *events: Event) -> None:
        """Have leaderboard handle events."""
        async with self.board.transaction() as session:
            for kind, handle in COUNTING.items():
                if chosen := [event for event in events if type(event) is kind]:
                    await handle(chosen, session)

    async def deliver(self) -> None:
        """Have leaderboard count everything that payments announced."""
        outbox = MESSAGING_TABLES.outbox
        async with self.books.database.transaction() as session:
            rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
            await session.execute(delete(outbox))
        await self.count(*(decode(row.name, row.value) for row in rows))

    async def prove(self) -> AuditState:
        """The whole audit."""
        state = await self.audit.begin(self.known)
        while state.stage != "done":
            state = AuditState.model_validate_json(state.model_dump_json())  # as over HTTP
            await self.audit.step(state)
        return state

    async def change(self, service: str, statement: Any) -> None:
        """Change a database behind the service's back."""
        database = self.board if service == "leaderboard" else self.books.database
        async with database.transaction() as session:
            await session.execute(statement)


def of_payment(state: AuditState, payment: str | None) -> list[tuple[str, dict[str, Any]]]:
    """What the audit found about a payment."""
    return [(one.what, one.figures) for one in state.differences if one.payment == payment]


@asynccontextmanager
async def audited(folder: Path, store: str) -> AsyncIterator[Audited]:
    """Both databases on SQLite in `folder`, or on PostgreSQL."""
    async with AsyncExitStack() as stack:
        urls = ["", ""]
        if store == "postgresql":
            urls = [await stack.enter_async_context(fresh_postgres()) for _ in urls]
        books = await stack.enter_async_context(open_books(folder, urls[0]))
        board = await stack.enter_async_context(open_database(folder, urls[1]))
        app = new_app("leaderboard", SECRET)
        complete = Complete()

        async def outbox_empty() -> bool:
            async with books.database.reading() as session:
                return (await session.execute(select(MESSAGING_TABLES.outbox.c.number))).first() is None

        async def behind() -> int:
            return found.behind

        app.include_router(audit_routes(board, complete, behind))
        client = InProcessServiceClient(app)
        audit = Audit(books.database, client, SECRET, books.clock, outbox_empty, round_s=0.0)
        drive = a_drive(partner="default")
        lookup = DriveLookup(books.database, InProcessServiceClient(Pledges().app), SECRET)
        found = Audited(
            books, board, audit, Auditor(books.database, audit, lookup, books.clock), drive, complete
        )
        await books.consume(drive)
        await found.count(drive)
        yield found
