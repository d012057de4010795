"""Leaderboard's part of the history of a gift."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import bindparam, select

from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from backbone.http.caller import InternalDep
from backbone.http.trace_steps import GiftRef, Story, money, step
from services.leaderboard.tables import drive_log, payments


def tell(transaction: SyncTransaction, drive_id: str, payment_ids: list[str]) -> Story:
    """The rows of the drive's log about payments, and how each counts now. Reads the drive's whole log."""
    rows = transaction.execute(_LOGGED, {"of_drive": drive_id, "ids": payment_ids}).all()
    steps = [
        step(
            row.at,
            f"row {row.sequence} of the drive's log (epoch {row.epoch}): {row.type}"
            f" {money(row.amount or 0, row.currency)},"
            f" raised {money(row.raised_after, row.currency)} after it",
        )
        for row in rows
    ]
    counted = transaction.execute(_COUNTED, {"ids": payment_ids}).all()
    for row in counted:
        net = money(row.captured - row.refunded - row.disputed, row.currency)
        how = f"counts {net}" if row.counted else f"holds {net} and does not count it"
        steps.append(step(None, f"leaderboard {how} of payment {row.payment_id} now (version {row.version})"))
    return Story(known=bool(rows or counted), steps=steps)


_LOGGED = (
    select(drive_log)
    .where(drive_log.c.drive_id == bindparam("of_drive"), one_of(drive_log.c.payment_id, "ids"))
    .order_by(drive_log.c.epoch, drive_log.c.sequence)
)
_COUNTED = select(payments).where(one_of(payments.c.payment_id, "ids")).order_by(payments.c.payment_id)


def trace_routes(database: Database) -> APIRouter:
    """`/internal/trace`."""
    router = APIRouter(include_in_schema=False)

    @router.post("/internal/trace")
    async def trace(_caller: InternalDep, gift: GiftRef) -> Story:
        return await database.read_whole(lambda one: tell(one, gift.drive, gift.payments))

    return router
