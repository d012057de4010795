"""HTTP routes: leaderboards and logs for everybody; books and display texts for internal callers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from backbone.bus.protocol import partition_of
from backbone.clock import rfc3339
from backbone.contracts.leaderboard import LogType
from backbone.database.database import Database
from backbone.http.caller import CallerDep, InternalDep
from backbone.http.fields import (
    REFERENCE,
    Body,
    CreatorIdView,
    MoneyView,
    PledgeIdView,
    Text,
    TimestampView,
    id_schema,
    text_schema,
)
from backbone.http.problems import Invalid, NotFound, documented
from services.leaderboard import queries
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.freshness import Freshness
from services.leaderboard.queries import DriveHead

CACHED: dict[str, str] = {"Cache-Control": "public, max-age=1"}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    304: {"description": "`If-None-Match` names the present `ETag`."},
    **documented(NotFound, Invalid),
}


class Place(BaseModel):
    """A creator's place on a leaderboard."""

    rank: int
    creator: CreatorIdView
    slug: str
    name: str
    raised: MoneyView
    donations: int


class BoardView(BaseModel):
    """A leaderboard at one sequence of its drive."""

    data: list[Place]
    sequence: int
    as_of: TimestampView | None


class LogRowView(BaseModel):
    """A row of a drive's gap-free log."""

    sequence: int
    type: Annotated[str, WithJsonSchema({"type": "string", "examples": list(get_args(LogType))})]
    at: TimestampView
    payment: Annotated[str, id_schema("pay")] | None
    pledge: PledgeIdView | None
    creator: CreatorIdView | None
    amount: MoneyView | None
    raised_after: MoneyView
    hash: str


class LogPage(BaseModel):
    """A page of a drive's log; `next` is None at its end."""

    data: list[LogRowView]
    next: str | None


class PledgeIds(Body):
    """The pledges whose display texts are requested."""

    ids: list[Text]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The objects that the routes use."""

    database: Database
    display_texts: DisplayTexts
    freshness: Freshness
    behind: Callable[[], Awaitable[int]]


Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
DriveRef = Annotated[str, Path(description="The drive's id or slug."), text_schema(REFERENCE)]


def routes(dependencies: Dependencies) -> APIRouter:
    """All routes of the service."""
    router = APIRouter()
    _add_public(router, dependencies)
    _add_internal(router, dependencies)
    return router


def _add_public(router: APIRouter, dependencies: Dependencies) -> None:
    @router.get("/v1/drives/{drive}/leaderboards/{board}", response_model=BoardView, responses=_RESPONSES)
    async def read_board(
        _caller: CallerDep,
        response: Response,
        drive: DriveRef,
        board: Literal["creators"],
        window: Literal["all"] = "all",
        limit: Limit = 25,
        around: Annotated[
            Annotated[Text, StringConstraints(max_length=64)] | SkipJsonSchema[None],
            Query(description="A creator's id."),
        ] = None,
        ataa_as_of: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> dict[str, Any]:
        """List the creators who raised most for a drive.

        `around` takes a creator's id and shows the ranks about it. Ties go to the larger amount, then to
        whoever reached it first. Other boards and windows than `creators` and `all` are refused so far.
        """
        response.headers.update(CACHED)
        async with dependencies.database.reading() as session:
            found = _existing(await queries.find_drive(session, drive))
            data = await session.run_sync(
                lambda inner: (
                    queries.top_creators(inner, found, limit)
                    if around is None
                    else queries.creators_around(inner, found, around, limit)
                )
            )
        if data is None:
            raise Invalid(errors=[{"pointer": "/query/around", "detail": "is no creator of this drive"}])
        # Weak: the leaderboard is unchanged while its drive is, although `as_of` moves forward.
        response.headers["ETag"] = f'W/"{found.epoch}.{found.sequence}.{found.revision}"'
        as_of = dependencies.freshness.of(partition_of(found.drive_id))
        return {
            "data": data,
            "sequence": found.sequence,
            # The gateway knows the freshness of other replicas' drives from their heartbeats.
            "as_of": rfc3339(as_of) if as_of is not None else ataa_as_of,
        }

    @router.get("/v1/drives/{drive}/events", response_model=LogPage, responses=_RESPONSES)
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
        `donation.refund_failed`, `donation.disputed`, `donation.dispute_won`, `milestone.reached`,
        `drive.opened`, `drive.paused`, `drive.resumed` and `drive.closed`; ignore others.
        """
        response.headers.update(CACHED)
        async with dependencies.database.reading() as session:
            found = _existing(await queries.find_drive(session, drive))
            rows, following = await queries.log_page(session, found, after, limit)
        return {"data": rows, "next": following}


def _existing(found: DriveHead | None) -> DriveHead:
    if found is None:
        raise NotFound("No such drive.")
    return found


def _add_internal(router: APIRouter, dependencies: Dependencies) -> None:
    @router.post("/internal/displays", include_in_schema=False)
    async def read_displays(_caller: InternalDep, wanted: PledgeIds) -> dict[str, Any]:
        """The display texts of these pledges, without those that are not available now."""
        shown = await dependencies.display_texts.of(wanted.ids)
        return {"data": {pledge_id: display_texts._asdict() for pledge_id, display_texts in shown.items()}}

    @router.get("/internal/books", include_in_schema=False)
    async def read_books(_caller: InternalDep) -> dict[str, str]:
        """The net of processor money per currency from the stored sums, held money included."""
        async with dependencies.database.reading() as session:
            return await queries.books(session)

    @router.get("/internal/differences", include_in_schema=False)
    async def read_differences(_caller: InternalDep) -> dict[str, Any]:
        """Every stored sum and log that differs from its recount; `data` is empty if all are right."""
        async with dependencies.database.reading() as session:
            return {"data": await queries.differences(session)}

    @router.get("/internal/quiet", include_in_schema=False)
    async def read_quiet(_caller: InternalDep) -> dict[str, int]:
        """Work that is still pending; every value is 0 once the service is drained."""
        behind = await dependencies.behind()  # first, because events consumed meanwhile may add outbox rows
        async with dependencies.database.reading() as session:
            return {"outbox": await queries.outbox_rows(session), "behind": behind}
