"""Notify's part of the history of a gift."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.http.caller import InternalDep
from backbone.http.trace_steps import GiftRef, Story, money, step
from services.notify.tables import RECEIPTS


async def tell(database: Database, payments: list[str]) -> Story:
    """The receipts of payments. Why one failed is not told: mail servers quote addresses."""
    found = select(RECEIPTS).where(one_of(RECEIPTS.c.payment_id, "ids")).order_by(RECEIPTS.c.payment_id)
    async with database.reading() as session:
        rows = (await session.execute(found, {"ids": payments})).all()
    steps = [
        step(
            row.counted_at,
            f"a receipt over {money(row.amount, row.currency)} of payment {row.payment_id} was owed: it is"
            f" {row.status} now, after {row.tries} tries",
        )
        for row in rows
    ]
    return Story(known=bool(rows), steps=steps)


def trace_routes(database: Database) -> APIRouter:
    """`/internal/trace`."""
    router = APIRouter(include_in_schema=False)

    @router.post("/internal/trace")
    async def trace(_caller: InternalDep, gift: GiftRef) -> Story:
        return await tell(database, gift.payments)

    return router
