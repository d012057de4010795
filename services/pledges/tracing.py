"""Pledges' part of the history of a gift."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from backbone.database.database import Database
from backbone.http.caller import InternalDep
from backbone.http.trace_steps import GiftRef, Step, Story, money, step
from services.pledges.tables import PAYMENTS, PLEDGES


async def tell(database: Database, pledge_id: str) -> Story:
    """When a pledge was made and for what, and what its payments made of it."""
    async with database.reading() as session:
        pledge = (await session.execute(select(PLEDGES).where(PLEDGES.c.id == pledge_id))).first()
        payments = (await session.execute(select(PAYMENTS).where(PAYMENTS.c.pledge_id == pledge_id))).all()
    if pledge is None:
        return Story(known=False)
    credited = "no creator" if pledge.creator_id is None else f"creator {pledge.creator_id}"
    steps = [
        step(
            pledge.made_at,
            f"pledged {money(pledge.amount, pledge.currency)} to drive {pledge.drive_id} for {credited},"
            f" through partner {pledge.partner}",
        ),
        _now(pledge.status, pledge.version, len(payments)),
    ]
    return Story(known=True, drive=pledge.drive_id, payments=sorted(row.id for row in payments), steps=steps)


def _now(status: str, version: int, payments: int) -> Step:
    return step(None, f"the pledge is {status} now (version {version}), by the state of {payments} payments")


def trace_routes(database: Database) -> APIRouter:
    """`/internal/trace`."""
    router = APIRouter(include_in_schema=False)

    @router.post("/internal/trace")
    async def trace(_caller: InternalDep, gift: GiftRef) -> Story:
        return await tell(database, gift.pledge)

    return router
