"""The HTTP door of pledges: the public routes it answers, and what the other services may ask."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.routing import APIRouter
from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.bodies import REFERENCE, AmountTooLarge, AmountTooSmall, Text, id_schema, text_schema
from backbone.caller import Caller, CallerDep, InternalDep, NotYourDrive, caller, internal
from backbone.contracts.pledges import PledgeStatus
from backbone.idempotency import (
    KeyMissing,
    KeyReused,
    OptionalKey,
    RequiredKey,
    hash_body,
    optional_key,
    replayed,
    required_key,
)
from backbone.problems import Forbidden, Invalid, NotFound, Problem, Unauthorized, documented
from services.pledges.commands import Drives, Made, Once, Pledges
from services.pledges.domain import (
    DriveClosed,
    DriveMove,
    DrivePaused,
    FieldFixed,
    IllegalMove,
    NotOpen,
    PartnerLeftOut,
    RealMoneyOnTestDrive,
    SlugTaken,
)
from services.pledges.intake import Intake, MakePledge
from services.pledges.queries import Reader
from services.pledges.reading import JsonRoute, answered_by, body_of, names_in
from services.pledges.views import CreatorList, CreatorView, DriveView, PledgeList, PledgeView, as_bytes
from services.pledges.wishes import CreatorSearch, CreatorWish, DriveChange, DriveWish, PledgeWish, read

JSON: Final = "application/json"


def _ref(drive: str) -> str:
    """What may name a drive at all; raises NotFound. (A NUL in a path would reach the database.)"""
    if re.fullmatch(REFERENCE, drive) is None:
        raise NotFound("No such drive.")
    return drive


def _pledge_id(pledge: str) -> str:
    if not ids.is_id(pledge, "plg"):
        raise NotFound("No such pledge.")
    return pledge


DriveRef = Annotated[
    str,
    Path(description="The drive's id or slug, in lower case."),
    AfterValidator(_ref),
    text_schema(REFERENCE, examples=["winter"]),
]
PledgeRef = Annotated[str, Path(description="The pledge's id."), AfterValidator(_pledge_id), id_schema("plg")]
DriveFilter = Annotated[
    Annotated[str, AfterValidator(_ref), text_schema(REFERENCE)] | SkipJsonSchema[None],
    Query(description="The drive's id or slug."),
]
ReferenceFilter = Annotated[
    Annotated[Text, StringConstraints(max_length=255)] | SkipJsonSchema[None],
    Query(description="What the partner called it."),
]
StatusFilter = Annotated[PledgeStatus | SkipJsonSchema[None], Query(description="Those in this status.")]
After = Annotated[
    Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]


def may(who: Caller, scope: str) -> None:
    """Raises Forbidden where `who` lacks `scope`; a publishable key may create pledges and read."""
    if not (who.publishable and scope == "pledges"):
        who.require(scope)


class Door:
    """Answers HTTP requests with an intake, changes and reads."""

    def __init__(self, intake: Intake, drives: Drives, pledges: Pledges, reader: Reader) -> None:
        self._intake = intake
        self._drives = drives
        self._pledges = pledges
        self._reader = reader

    async def make_drive(
        self, request: Request, wish: DriveWish, who: CallerDep, key: OptionalKey
    ) -> Response:
        """Create a drive, in the state `draft`."""
        may(who, "drives")
        return _made(await self._drives.make_drive(wish, who, await _once(request, key)))

    async def show_drive(self, drive: DriveRef, who: CallerDep) -> Response:
        """Read a drive."""
        return _json(await self._readable(drive, who))

    async def _readable(self, drive: str, who: Caller) -> dict[str, Any]:
        """The drive, for one whose key may read it. Raises NotFound, Forbidden."""
        found = await self._reader.drive(drive)
        if who.mode == "test" and not found["test"]:
            raise Forbidden("A test key works on test drives only.")
        return found

    async def change_drive(self, drive: DriveRef, change: DriveChange, who: CallerDep) -> Response:
        """Change a drive.

        Fields that are not sent stay as they are. Some are fixed once the drive has been opened.
        """
        may(who, "drives")
        return _json(await self._drives.change_drive(drive, change, who))

    def mover(self, what: DriveMove) -> Callable[[DriveRef, CallerDep], Awaitable[Response]]:
        """The endpoint that does `what` with a drive."""

        async def move_drive(drive: DriveRef, who: CallerDep) -> Response:
            may(who, "drives")
            return _json(await self._drives.move_drive(drive, what, who))

        return move_drive

    async def add_creator(
        self, request: Request, drive: DriveRef, wish: CreatorWish, who: CallerDep, key: OptionalKey
    ) -> Response:
        """Add a creator who raises for a drive."""
        may(who, "drives")
        return _made(await self._drives.add_creator(drive, wish, who, await _once(request, key)))

    async def list_creators(
        self, drive: DriveRef, who: CallerDep, after: After = None, limit: Limit = 25
    ) -> Response:
        """List a drive's creators, oldest first."""
        await self._readable(drive, who)
        return _json(await self._reader.creators(drive, after, limit))

    async def list_pledges(
        self,
        who: CallerDep,
        drive: DriveFilter = None,
        reference: ReferenceFilter = None,
        status: StatusFilter = None,
        after: After = None,
        limit: Limit = 25,
    ) -> Response:
        """List the partner's own pledges, newest first."""
        who.require("pledges")
        wanted = {"drive": drive, "reference": reference, "status": status}
        given = {name: value for name, value in wanted.items() if value is not None}
        return _json(await self._reader.list_pledges(who, given, after, limit))

    async def cancel_pledge(self, pledge: PledgeRef, who: CallerDep) -> Response:
        """Cancel a pledge that is open and unpaid.

        Cancelling it again changes nothing. Money that still arrives makes it paid.
        """
        who.require("pledges")
        return _json(await self._pledges.cancel(pledge, who))

    async def make_pledge(
        self, request: Request, drive: DriveRef, wish: PledgeWish, who: CallerDep, key: RequiredKey
    ) -> Response:
        """Create a pledge to a live drive.

        The same Idempotency-Key with the same body answers with the same pledge.
        """
        may(who, "pledges")
        body_hash = hash_body(await request.body())
        command = MakePledge(drive, wish, who, key, body_hash)
        reply, again = await self._intake.submit(command)
        return replayed(201, reply, again=again)

    async def make_pledge_quickly(self, request: Request) -> Response:
        """`make_pledge`, its arguments read straight from the request."""
        who = await caller(request)
        may(who, "pledges")
        key = await required_key(await optional_key(request.headers.get("idempotency-key")))
        wish = read(PledgeWish, await body_of(request))
        return await self.make_pledge(request, _ref(request.path_params["drive"]), wish, who, key)


_MOVES: Final[Mapping[DriveMove, str]] = {
    DriveMove.OPEN: "Open a drive.\n\nFrom `draft` to `live`: it takes pledges from now on.",
    DriveMove.PAUSE: "Pause a live drive.\n\nPledges are refused until it is resumed; payments still count.",
    DriveMove.RESUME: "Resume a paused drive.",
    DriveMove.CLOSE: "Close a drive for good.\n\nMoney that still arrives counts; pledges are refused.",
}


def install(app: FastAPI, door: Door) -> None:
    """Put the public routes into `app`."""
    app.router.add_api_route(
        "/v1/drives/{drive}/pledges",
        door.make_pledge,
        methods=["POST"],
        status_code=201,
        response_model=PledgeView,
        responses=documented(
            KeyMissing,
            Unauthorized,
            Forbidden,
            PartnerLeftOut,
            NotFound,
            DriveClosed,
            DrivePaused,
            RealMoneyOnTestDrive,
            AmountTooSmall,
            AmountTooLarge,
            KeyReused,
        ),
        route_class_override=answered_by(door.make_pledge_quickly),
    )
    router = app.router
    menu = (AmountTooSmall, AmountTooLarge)
    _post(router, "/v1/drives", door.make_drive, DriveView, SlugTaken, Invalid, *menu)
    kinds = (NotYourDrive, NotFound, SlugTaken, Invalid)
    _post(router, "/v1/drives/{drive}/creators", door.add_creator, CreatorView, *kinds)
    for path, endpoint, view in (
        ("/v1/drives/{drive}", door.show_drive, DriveView),
        ("/v1/drives/{drive}/creators", door.list_creators, CreatorList),
    ):
        refused = documented(Unauthorized, Forbidden, NotFound)
        router.add_api_route(path, endpoint, response_model=view, responses=refused)
    router.add_api_route(
        "/v1/drives/{drive}",
        door.change_drive,
        methods=["PATCH"],
        response_model=DriveView,
        responses=documented(
            Unauthorized, Forbidden, NotYourDrive, NotFound, FieldFixed, SlugTaken, Invalid, *menu
        ),
        route_class_override=JsonRoute,
    )
    router.add_api_route(
        "/v1/pledges",
        door.list_pledges,
        response_model=PledgeList,
        responses=documented(Unauthorized, Forbidden, NotFound),
    )
    router.add_api_route(
        "/v1/pledges/{pledge}/cancel",
        door.cancel_pledge,
        methods=["POST"],
        response_model=PledgeView,
        responses=documented(Unauthorized, Forbidden, NotFound, NotOpen),
    )
    for what in DriveMove:
        router.add_api_route(
            f"/v1/drives/{{drive}}/{what.value}",
            door.mover(what),
            methods=["POST"],
            name=f"{what.value}_drive",
            description=_MOVES[what],
            response_model=DriveView,
            responses=documented(Unauthorized, Forbidden, NotYourDrive, NotFound, IllegalMove),
        )


def install_internal(app: FastAPI, reader: Reader, behind: Callable[[], Awaitable[int]]) -> None:
    """Put the doors for the other services into `app`."""

    def ask(path: str, field: str, find: Callable[[Sequence[str]], Awaitable[dict[str, Any]]]) -> None:
        async def answer(request: Request) -> Response:
            await internal(await caller(request))
            return _json({"data": await find(await names_in(request, field))})

        app.router.add_api_route(
            path, answer, methods=["POST"], include_in_schema=False, route_class_override=answered_by(answer)
        )

    ask("/internal/pledges", "ids", reader.pledges)
    ask("/internal/checkout-details", "ids", reader.checkout_details)
    ask("/internal/words", "ids", reader.words)
    ask("/internal/receipts", "ids", reader.receipts)
    ask("/internal/drives", "refs", reader.drives)
    ask("/internal/creators", "refs", reader.creators_called)

    @app.post("/internal/creator-search", include_in_schema=False)
    async def search_creators(_who: InternalDep, wanted: CreatorSearch) -> Response:
        return _json({"data": await reader.search_creators(wanted.drive, wanted.text)})

    @app.get("/internal/books", include_in_schema=False)
    async def books(_who: InternalDep) -> Response:
        return _json(await reader.books())

    @app.get("/internal/quiet", include_in_schema=False)
    async def quiet(_who: InternalDep) -> Response:
        heard = await behind()  # first: what is heard meanwhile may have to be said
        return _json({"outbox": await reader.waiting(), "behind": heard})


def _post(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    view: type,
    *kinds: type[Problem],
) -> None:
    """A POST that creates."""
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        status_code=201,
        response_model=view,
        responses=documented(Unauthorized, Forbidden, KeyReused, *kinds),
        route_class_override=JsonRoute,
    )


async def _once(request: Request, key: str | None) -> Once:
    return Once(key, hash_body(await request.body()))


def _made(made: Made) -> Response:
    return replayed(201, made.reply, again=made.again)


def _json(view: Any) -> Response:
    return Response(as_bytes(view), media_type=JSON)
