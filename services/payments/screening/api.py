"""The internal route from which the gateway learns which clients are refused."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import bindparam, select

from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.http.caller import InternalDep
from services.payments.screening.tables import REFUSED

PAGE: Final = 1_000


def routes(database: Database, clock: Clock) -> APIRouter:
    """The route of refused clients."""
    router = APIRouter()

    @router.get("/internal/refused-clients", include_in_schema=False)
    async def read_refused(
        _caller: InternalDep, after: Annotated[int, Query(ge=0)] = 0
    ) -> list[dict[str, Any]]:
        """The refusals after a number that have not ended, at most `PAGE`, in the order of their numbers."""
        async with database.reading() as session:
            rows = await session.execute(_PAGE, {"after": after, "now": clock.now()})
            return [{"number": row.number, "client": row.client, "until": rfc3339(row.until)} for row in rows]

    return router


_PAGE: Final = (
    select(REFUSED)
    .where(REFUSED.c.number > bindparam("after"), REFUSED.c.until > bindparam("now"))
    .order_by(REFUSED.c.number)
    .limit(PAGE)
)
