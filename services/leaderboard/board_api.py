"""HTTP routes for everybody: leaderboards and donations."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone.bus.protocol import partition_of
from backbone.clock import rfc3339
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction, Transaction
from backbone.http.caller import CallerDep
from backbone.http.fields import CreatorIdView, MoneyView, Text, TimestampView, id_schema
from backbone.http.problems import Invalid, Overloaded, documented
from services.leaderboard import boards, donations, queries
from services.leaderboard.api_fields import CACHED, RESPONSES, DriveRef, Limit
from services.leaderboard.boards import Board, Ranking, Window
from services.leaderboard.display_texts import ANONYMOUS, DisplayTexts
from services.leaderboard.donations import PATTERN, Position
from services.leaderboard.freshness import Freshness
from services.leaderboard.queries import DriveHead
from services.leaderboard.summing import Summing

MAX_KEY: Final = 1_000
"""Characters of what `around` takes: a source's platform and campaign, percent-encoded."""


class CreatorPlace(BaseModel):
    """A creator's place on a leaderboard."""

    rank: int
    creator: CreatorIdView
    slug: str
    name: str
    raised: MoneyView
    donations: int


class DonorPlace(BaseModel):
    """A donor's place. `name` is that of the newest gift, null for gifts without a name.

    Gifts that a donor made without a name are summed apart from the others, under an id of their own.
    """

    rank: int
    donor: Annotated[str, id_schema("dnr")]
    name: str | None
    raised: MoneyView
    donations: int


class TeamPlace(BaseModel):
    """A team's place: the sum of its present creators."""

    rank: int
    team: str
    raised: MoneyView
    donations: int


class SourcePlace(BaseModel):
    """The place of a platform and campaign. `source` is both, joined by a slash, percent-encoded."""

    rank: int
    source: str
    platform: str | None
    campaign: str | None
    raised: MoneyView
    donations: int


class BoardView(BaseModel):
    """A leaderboard at one sequence of its drive."""

    data: list[CreatorPlace | DonorPlace | TeamPlace | SourcePlace]
    sequence: int
    as_of: TimestampView | None


class DonationView(BaseModel):
    """A donation as it may be shown: `name` is null for anonymous donors, `message` where there is none.

    `amount` is as it was given, `reporting_amount` is in the drive's currency.
    """

    id: Annotated[str, id_schema("don")]
    name: str | None
    message: str | None
    amount: MoneyView
    reporting_amount: MoneyView
    creator: CreatorIdView | None
    at: TimestampView


class DonationPage(BaseModel):
    """Donations, newest first; `next` is null at the end."""

    data: list[DonationView]
    next: str | None


Around = Annotated[
    Annotated[Text, StringConstraints(min_length=1, max_length=MAX_KEY)] | SkipJsonSchema[None],
    Query(description="A creator's or donor's id, a team, or a source."),
]


class BoardReads:
    """What the routes do."""

    def __init__(
        self, database: Database, display_texts: DisplayTexts, freshness: Freshness, summing: Summing
    ) -> None:
        self._database = database
        self._display_texts = display_texts
        self._freshness = freshness
        self._summing = summing

    async def board(
        self, ref: str, board: Board, window: Window, limit: int, key: str | None, known_as_of: str | None
    ) -> tuple[dict[str, Any], str]:
        """A board, and its ETag. `known_as_of` is what the gateway knows of the drive's freshness.

        Raises `NotFound`, `Invalid` for an unknown `key`, and `Overloaded` while the board is summed.
        """
        immediate = boards.is_immediate(board, window)
        async with self._database.reading() as session:
            drive = queries.existing(await queries.find_drive(session, ref))
            as_of = self._as_of(drive.drive_id, known_as_of)
            if immediate:
                ranking = await self._ranking(session, drive, board, window, limit, key)
        sequence = drive.sequence
        if not immediate:
            as_of = (await self._summing.up_to_date(drive.drive_id, as_of)).as_of
            async with self._database.reading() as session:
                drive = queries.existing(await queries.find_drive(session, ref))
                sequence = drive.sequence_of_sums()
                ranking = await self._ranking(session, drive, board, window, limit, key)
        texts = await self._display_texts.of(ranking.pledges.values())
        data = boards.places(board, ranking, drive.currency, lambda pledge: texts.get(pledge, ANONYMOUS).name)
        etag = f"{drive.epoch}.{sequence}.{drive.revision}" if immediate else _digest([drive.epoch, data])
        return {"data": data, "sequence": sequence, "as_of": as_of}, etag

    def _as_of(self, drive_id: str, known_as_of: str | None) -> str | None:
        # The gateway knows the freshness of other replicas' drives from their heartbeats.
        as_of = self._freshness.of(partition_of(drive_id))
        return rfc3339(as_of) if as_of is not None else known_as_of

    async def _ranking(
        self,
        session: Transaction,
        drive: DriveHead,
        board: Board,
        window: Window,
        limit: int,
        key: str | None,
    ) -> Ranking:
        def read(transaction: SyncTransaction) -> Ranking | None:
            if key is None:
                return boards.top(transaction, drive.drive_id, board, window, limit)
            found = boards.around(transaction, drive.drive_id, board, window, limit, key)
            if found is None and boards.knows(transaction, drive.drive_id, board, key):
                return Ranking((), 0, {})
            return found

        found = await session.run_sync(read)
        if found is None:
            detail = f"is none of this drive's {board}"
            raise Invalid(errors=[{"pointer": "/query/around", "detail": detail}])
        return found

    async def donations(self, ref: str, after: str | None, limit: int) -> dict[str, Any]:
        """A page of donations. Raises `NotFound`, and `Invalid` for an `after` that no page named."""
        try:
            position = None if after is None else Position.parse(after)
        except ValueError:
            errors = [{"pointer": "/query/after", "detail": "must be the `next` of another page"}]
            raise Invalid(errors=errors) from None
        async with self._database.reading() as session:
            drive = queries.existing(await queries.find_drive(session, ref))
            rows, following = await session.run_sync(
                lambda inner: donations.page(inner, drive.drive_id, position, limit)
            )
        texts = await self._display_texts.of(row.pledge_id for row in rows if row.pledge_id is not None)
        return {
            "data": [donations.shown(row, texts, drive.currency) for row in rows],
            "next": None if following is None else str(following),
        }


def add_routes(router: APIRouter, reads: BoardReads) -> None:
    """Add the leaderboards and the list of donations."""

    @router.get(
        "/v1/drives/{drive}/leaderboards/{board}",
        response_model=BoardView,
        responses=RESPONSES | documented(Overloaded),
    )
    async def read_board(
        _caller: CallerDep,
        response: Response,
        drive: DriveRef,
        board: Board,
        window: Window = "all",
        limit: Limit = 25,
        around: Around = None,
        ataa_as_of: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> dict[str, Any]:
        """List who raised or gave most for a drive.

        Creators, donors, teams or sources. Amounts are what is left after refunds and disputes; ties go to
        whoever reached the amount first. A window has the donations of the last 24 hours or of the last hour,
        and slides: a refund lowers the window that its donation is in. `around` takes a creator's or donor's
        id, a team or a source, and shows the ranks around it; the list is empty where its amount is 0.
        """
        response.headers.update(CACHED)
        shown, etag = await reads.board(drive, board, window, limit, around, ataa_as_of)
        # Weak: the leaderboard is unchanged while `as_of` moves forward.
        response.headers["ETag"] = f'W/"{etag}"'
        return shown

    @router.get(
        "/v1/drives/{drive}/donations",
        response_model=DonationPage,
        responses=RESPONSES,
    )
    async def read_donations(
        _caller: CallerDep,
        response: Response,
        drive: DriveRef,
        after: Annotated[
            Annotated[str, StringConstraints(pattern=PATTERN)] | SkipJsonSchema[None],
            Query(description="The `next` of the page before."),
        ] = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List a drive's donations, newest first.

        With the names and messages that may be shown. A donation that was refunded in full, or whose money
        is held, is not listed.
        """
        response.headers.update(CACHED)
        page = await reads.donations(drive, after, limit)
        response.headers["ETag"] = f'W/"{_digest(page)}"'
        return page


def _digest(shown: Any) -> str:
    return blake2b(json.dumps(shown).encode(), digest_size=12).hexdigest()
