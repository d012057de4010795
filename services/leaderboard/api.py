"""HTTP routes: the log for everybody; books and display texts for internal callers. See also `board_api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from backbone.contracts.leaderboard import LogType
from backbone.database.database import Database
from backbone.http.caller import CallerDep, InternalDep
from backbone.http.fields import (
    Body,
    CreatorIdView,
    MoneyView,
    PledgeIdView,
    Text,
    Timestamp,
    TimestampView,
    id_schema,
)
from services.leaderboard import queries
from services.leaderboard.api_fields import CACHED, RESPONSES, DriveRef, Limit
from services.leaderboard.board_api import BoardReads
from services.leaderboard.board_api import add_routes as add_board_routes
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.funnel import paid_by_source
from services.leaderboard.summing import Summing
from services.leaderboard.transparency.api import add_transparency
from services.leaderboard.transparency.tiling import Tiling


class LogRowView(BaseModel):
    """A row of a drive's gap-free log.

    `amount` is as it was given; `reporting_amount`, in the drive's currency, is there where that is another.
    """

    sequence: int
    type: Annotated[str, WithJsonSchema({"type": "string", "examples": list(get_args(LogType))})]
    at: TimestampView
    payment: Annotated[str, id_schema("pay")] | None
    pledge: PledgeIdView | None
    creator: CreatorIdView | None
    amount: MoneyView | None
    raised_after: MoneyView
    hash: str
    reporting_amount: MoneyView | SkipJsonSchema[None] = None


class LogPage(BaseModel):
    """A page of a drive's log; `next` is None at its end."""

    data: list[LogRowView]
    next: str | None


class PledgeIds(Body):
    """The pledges whose display texts are requested."""

    ids: list[Text]


class FunnelPeriod(Body):
    """A drive, by id, and the period whose gifts the gateway counts."""

    drive: Text
    since: Timestamp
    until: Timestamp


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The objects that the routes use."""

    database: Database
    display_texts: DisplayTexts
    board_reads: BoardReads
    behind: Callable[[], Awaitable[int]]
    summing: Summing
    tiling: Tiling


def routes(dependencies: Dependencies) -> APIRouter:
    """All routes of the service."""
    router = APIRouter()
    add_board_routes(router, dependencies.board_reads)
    _add_log(router, dependencies)
    _add_internal(router, dependencies)
    add_transparency(router, dependencies.database, dependencies.tiling)
    return router


def _add_log(router: APIRouter, dependencies: Dependencies) -> None:
    @router.get(
        "/v1/drives/{drive}/events",
        response_model=LogPage,
        response_model_exclude_unset=True,
        responses=RESPONSES,
    )
    async def read_log(
        _caller: CallerDep,
        response: Response,
        drive: DriveRef,
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List the rows of a drive's log after a sequence, oldest first.

        The log has no gaps: sequences count from 1, and `hash` chains each row to the one before it. Types
        are `donation.counted`, `donation.corrected` (more was captured than was known), `donation.refunded`,
        `donation.refund_failed`, `donation.disputed`, `donation.dispute_won`, `matching.applied`
        (a sponsor matched gifts), `matching.returned` (refunds gave a sponsor's share back),
        `milestone.reached`, `drive.opened`, `drive.paused`, `drive.resumed` and `drive.closed`. Ignore
        others.
        """
        response.headers.update(CACHED)
        async with dependencies.database.reading() as session:
            found = queries.existing(await queries.find_drive(session, drive))
            rows, following = await queries.log_page(session, found, after, limit)
        return {"data": rows, "next": following}


def _add_internal(router: APIRouter, dependencies: Dependencies) -> None:
    @router.post("/internal/displays", include_in_schema=False)
    async def read_displays(_caller: InternalDep, wanted: PledgeIds) -> dict[str, Any]:
        """The display texts of these pledges, without those that are not available now."""
        shown = await dependencies.display_texts.of(wanted.ids)
        return {"data": {pledge_id: display_texts._asdict() for pledge_id, display_texts in shown.items()}}

    @router.post("/internal/funnel", include_in_schema=False)
    async def count_gifts(_caller: InternalDep, period: FunnelPeriod) -> Mapping[str, Any]:
        """The gifts of a drive in a period, by source."""
        return await paid_by_source(dependencies.database, period.drive, period.since, period.until)

    @router.get("/internal/books", include_in_schema=False)
    async def read_books(_caller: InternalDep) -> dict[str, str]:
        """The net of processor money per currency from the stored sums, held money included."""
        async with dependencies.database.reading() as session:
            return await queries.books(session)

    @router.get("/internal/differences", include_in_schema=False)
    async def read_differences(_caller: InternalDep) -> dict[str, Any]:
        """Every stored sum and log that differs from its recount; `data` is empty if all are right.

        The boards of this process's drives are brought up to date first: sums that lack payments cannot be
        compared.
        """
        await dependencies.summing.sum_due()
        async with dependencies.database.reading() as session:
            return {"data": await queries.differences(session)}

    @router.get("/internal/quiet", include_in_schema=False)
    async def read_quiet(_caller: InternalDep) -> dict[str, int]:
        """Work that is still pending; every value is 0 once the service is drained."""
        behind = await dependencies.behind()  # first, because events consumed meanwhile may add outbox rows
        async with dependencies.database.reading() as session:
            return {"outbox": await queries.outbox_rows(session), "behind": behind}
