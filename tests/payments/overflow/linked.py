"""Books with a Payment Link, pledges that were given it, and Stripe's events of payments through it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from backbone.contracts import DriveChanged, PledgeMade
from services.payments.overflow.references import reference_of
from services.payments.overflow.tables import LINKS
from services.payments.tables import LOOKUPS, PAYMENTS
from tests.payments.books import Books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import an_event

SECRET = "5e" * 32
PRICE = 2_500


@dataclass
class Linked:
    """A live drive with an active link of `PRICE`, in these books."""

    books: Books
    drive: DriveChanged

    @property
    def key(self) -> str:
        return f"{self.drive.drive_id}.USD.{PRICE}"

    async def pledge(self, **other: Any) -> PledgeMade:
        """A pledge of the link's amount."""
        pledge = a_pledge(self.drive, PRICE, **other)
        await self.books.consume(pledge)
        return pledge

    def reference(self, pledge: PledgeMade) -> str:
        return reference_of(pledge.pledge_id, SECRET)

    def session(self, intent: str, reference: str | None, units: int = PRICE) -> dict[str, Any]:
        """`checkout.session.completed` of a visit of the link."""
        return an_event(
            "checkout.session.completed",
            {
                "id": f"cs_{intent}", "payment_intent": intent, "payment_status": "paid",
                "amount_total": units, "currency": "usd", "client_reference_id": reference,
                "metadata": self.metadata, "payment_link": "plink_1",
            },
        )  # fmt: skip

    def intent(self, intent: str, units: int = PRICE) -> dict[str, Any]:
        """`payment_intent.succeeded` of a visit: it has the link's metadata, and no reference."""
        thing = {"id": intent, "amount_received": units, "currency": "usd", "metadata": self.metadata}
        return an_event("payment_intent.succeeded", thing)

    @property
    def metadata(self) -> dict[str, str]:
        return {"ataa_drive": self.drive.drive_id, "ataa_link": self.key}

    async def captured(self) -> list[Any]:
        """The payments of the drive with money, in the order of their captures."""
        statement = select(PAYMENTS).where(
            PAYMENTS.c.captured > 0, PAYMENTS.c.drive_id == self.drive.drive_id
        )
        async with self.books.database.reading() as session:
            return list((await session.execute(statement.order_by(PAYMENTS.c.number))).all())

    async def lookups(self) -> Collection[tuple[str, str]]:
        async with self.books.database.reading() as session:
            rows = await session.execute(select(LOOKUPS.c.intent, LOOKUPS.c.kind))
            return [(row.intent, row.kind) for row in rows]


async def a_link(books: Books, **values: Any) -> Linked:
    """A new drive with a link."""
    linked = Linked(books, a_drive())
    await books.consume(linked.drive)
    await store_link(books, linked, **values)
    return linked


async def store_link(books: Books, linked: Linked, **values: Any) -> None:
    now: datetime = books.clock.now()
    row = {
        "key": linked.key, "drive_id": linked.drive.drive_id, "currency": "USD", "amount": PRICE,
        "state": "active", "parameters": "{}", "secret": SECRET, "n": 1, "tries": 0, "link_id": "plink_1",
        "url": "https://donate.example/link", "reason": None, "used_until": None, "next_try_at": now,
        "sent_since": now - timedelta(minutes=1),
    }  # fmt: skip
    async with books.database.transaction() as session:
        await session.execute(insert(LINKS).values(**row | values))
