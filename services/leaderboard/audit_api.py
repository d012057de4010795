"""Internal routes for the audit of a drive (`services/payments/proof`); each reads a bounded part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import Field

from backbone.bus.protocol import partition_of
from backbone.clock import rfc3339
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from services.leaderboard import auditing, recounting
from services.leaderboard.auditing import CountedPayment, LogPosition
from services.leaderboard.freshness import Freshness

MAX_ROWS: Final = 5_000
_ENCODE: Final = msgspec.json.Encoder().encode


class RowsWanted(Body):
    """Payments of a drive by a range of ids, or some by their ids whatever their drive."""

    drive: Text = ""
    after: Text = ""
    until: Text = ""
    ids: Annotated[list[Text], Field(max_length=MAX_ROWS)] | None = None


class Position(Body):
    """A drive, by id, and how far its log was computed again."""

    drive: Text
    epoch: int = 0
    sequence: int = 0
    hash: Text = ""
    raised: int = 0


class OfDrive(Body):
    """A drive, by id."""

    drive: Text


def audit_routes(database: Database, freshness: Freshness, behind: Callable[[], Awaitable[int]]) -> APIRouter:
    """The routes under `/internal/audit`."""
    router = APIRouter(prefix="/internal/audit", include_in_schema=False)

    @router.post("/payments")
    async def read_payments(_caller: InternalDep, wanted: RowsWanted) -> Response:
        """Payments as they are counted; `next` is where a range goes on, None at its end."""

        def read(one: SyncTransaction) -> list[CountedPayment]:
            if wanted.ids is not None:
                return auditing.payments_by_id(one, wanted.ids)
            return auditing.counted_payments(one, wanted.drive, wanted.after, wanted.until, MAX_ROWS)

        rows = await database.read_whole(read)
        following = rows[-1].payment_id if wanted.ids is None and len(rows) == MAX_ROWS else None
        # FastAPI's own encoder takes several times as long as all the rest.
        return Response(_ENCODE({"rows": rows, "next": following}), media_type="application/json")

    @router.post("/pools")
    async def read_pools(_caller: InternalDep, wanted: OfDrive) -> dict[str, Any]:
        """A drive's matching pools as they are counted: id, version, used."""
        return {"rows": await database.read_whole(lambda one: auditing.counted_pools(one, wanted.drive))}

    @router.post("/log")
    async def verify_log(_caller: InternalDep, start: Position) -> dict[str, Any]:
        """The next step along a drive's log; `known` is False where leaderboard does not know the drive."""
        position = LogPosition(start.epoch, start.sequence, start.hash, start.raised)
        try:
            step = await database.read_whole(lambda one: auditing.verify_log(one, start.drive, position))
        except LookupError:
            return {"known": False}
        return {"known": True, **step._asdict(), "position": step.position._asdict()}

    @router.post("/sums")
    async def compare_sums(_caller: InternalDep, wanted: OfDrive) -> dict[str, Any]:
        """The stored sums of a drive that differ from their recount, and its payments from its log."""

        def read(one: SyncTransaction) -> dict[str, Any]:
            return {
                "sums": [found._asdict() for found in recounting.sum_differences(one, wanted.drive)],
                "log": [found._asdict() for found in auditing.log_differences(one, wanted.drive)],
            }

        return await database.read_whole(read)

    @router.post("/arrived")
    async def read_arrived(_caller: InternalDep, wanted: OfDrive) -> dict[str, Any]:
        """How much of what was published is counted: `behind` records are not.

        Everything that was committed before `complete_to` is counted; None where another process knows.
        """
        complete_to = freshness.of(partition_of(wanted.drive))
        return {"behind": await behind(), "complete_to": complete_to and rfc3339(complete_to)}

    return router
