"""The public HTTP API of pledges (API.md): drives, creators and pledges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRouter

from backbone.http.caller import Caller, CallerDep, NotYourDrive, authenticated_caller
from backbone.http.client_header import CLIENT_HEADER, client_of
from backbone.http.fields import AmountTooLarge, AmountTooSmall
from backbone.http.problems import Forbidden, Invalid, NotFound, Problem, Unauthorized, documented
from backbone.idempotency import (
    KeyMissing,
    KeyReused,
    OptionalKey,
    RequiredKey,
    hash_body,
    keyed_response,
    optional_key,
    required_key,
)
from services.pledges.api_parameters import (
    After,
    DriveFilter,
    DriveRef,
    Limit,
    PledgeRef,
    ReferenceFilter,
    StatusFilter,
    drive_ref,
)
from services.pledges.commands import DriveCommands, KeyedRequest, PledgeCommands
from services.pledges.domain import DriveTransition
from services.pledges.intake import Intake
from services.pledges.new_pledges import MakePledge
from services.pledges.problems import (
    CurrencyNotAccepted,
    DriveClosed,
    DrivePaused,
    FieldImmutable,
    IllegalTransition,
    NoExchangeRate,
    PartnerNotAllowed,
    PledgeNotOpen,
    RealMoneyOnTestDrive,
    SlugTaken,
)
from services.pledges.queries import Queries
from services.pledges.request_parsing import JsonRoute, direct_route, json_body
from services.pledges.requests import (
    CreatorRequest,
    DriveChange,
    DriveRequest,
    PledgeRequest,
    parse,
)
from services.pledges.views import (
    CreatorList,
    CreatorView,
    DriveList,
    DriveView,
    PledgeList,
    PledgeView,
    json_response,
)


def require_scope(caller: Caller, scope: str) -> None:
    """Raises Forbidden where `caller` lacks `scope`; a publishable key may create pledges and read."""
    if not (caller.publishable and scope == "pledges"):
        caller.require(scope)


def may_change(caller: Caller, drive: Mapping[str, Any]) -> bool:
    """Whether `caller` owns `drive` (a `DriveView`) or administers the installation."""
    return caller.admin or caller.partner == drive["partner"]


class Dependencies:
    """The endpoints, and the commands and queries they call."""

    def __init__(
        self, intake: Intake, drives: DriveCommands, pledges: PledgeCommands, queries: Queries
    ) -> None:
        self._intake = intake
        self._drives = drives
        self._pledges = pledges
        self._queries = queries

    async def make_drive(
        self, request: Request, body: DriveRequest, caller: CallerDep, key: OptionalKey
    ) -> Response:
        """Create a drive, in the state `draft`."""
        require_scope(caller, "drives")
        return keyed_response(await self._drives.make_drive(body, caller, await _keyed_request(request, key)))

    async def list_drives(self, caller: CallerDep, after: After = None, limit: Limit = 25) -> Response:
        """List the partner's own drives, newest first.

        With an admin key: those of every partner.
        """
        require_scope(caller, "drives")
        return json_response(await self._queries.list_drives(caller, after, limit))

    async def show_drive(self, drive: DriveRef, caller: CallerDep) -> Response:
        """Read a drive."""
        found = await self._readable_drive(drive, caller)
        if caller.publishable or not (may_change(caller, found) or "internal" in caller.scopes):
            found["moderation"] = None  # whoever knows the words can avoid them
        return json_response(found)

    async def _readable_drive(self, drive: str, caller: Caller) -> dict[str, Any]:
        """The drive, if the caller may read it. Raises NotFound, Forbidden."""
        found = await self._queries.drive(drive)
        if caller.mode == "test" and not found["test"]:
            raise Forbidden("A test key works on test drives only.")
        return found

    async def change_drive(self, drive: DriveRef, change: DriveChange, caller: CallerDep) -> Response:
        """Change a drive.

        Fields that are not sent stay as they are. Some are fixed once the drive has been opened.
        """
        require_scope(caller, "drives")
        return json_response(await self._drives.change_drive(drive, change, caller))

    def transition_endpoint(
        self, transition: DriveTransition
    ) -> Callable[[DriveRef, CallerDep], Awaitable[Response]]:
        """The endpoint of one transition of a drive."""

        async def transition_drive(drive: DriveRef, caller: CallerDep) -> Response:
            require_scope(caller, "drives")
            return json_response(await self._drives.transition_drive(drive, transition, caller))

        return transition_drive

    async def add_creator(
        self, request: Request, drive: DriveRef, body: CreatorRequest, caller: CallerDep, key: OptionalKey
    ) -> Response:
        """Add a creator who raises for a drive."""
        require_scope(caller, "drives")
        return keyed_response(
            await self._drives.add_creator(drive, body, caller, await _keyed_request(request, key))
        )

    async def list_creators(
        self, drive: DriveRef, caller: CallerDep, after: After = None, limit: Limit = 25
    ) -> Response:
        """List a drive's creators, oldest first."""
        await self._readable_drive(drive, caller)
        return json_response(await self._queries.creators(drive, after, limit))

    async def list_pledges(
        self,
        caller: CallerDep,
        drive: DriveFilter = None,
        reference: ReferenceFilter = None,
        status: StatusFilter = None,
        after: After = None,
        limit: Limit = 25,
    ) -> Response:
        """List the partner's own pledges, newest first."""
        caller.require("pledges")
        wanted = {"drive": drive, "reference": reference, "status": status}
        filters = {name: value for name, value in wanted.items() if value is not None}
        return json_response(await self._queries.list_pledges(caller, filters, after, limit))

    async def cancel_pledge(self, pledge: PledgeRef, caller: CallerDep) -> Response:
        """Cancel a pledge that is open and unpaid.

        Cancelling it again changes nothing. Money that still arrives makes it paid.
        """
        caller.require("pledges")
        return json_response(await self._pledges.cancel(pledge, caller))

    async def make_pledge(
        self, request: Request, drive: DriveRef, body: PledgeRequest, caller: CallerDep, key: RequiredKey
    ) -> Response:
        """Create a pledge to a live drive.

        The same Idempotency-Key with the same body answers with the same pledge.
        """
        require_scope(caller, "pledges")
        body_hash = hash_body(await request.body())
        client = client_of(request.headers.get(CLIENT_HEADER))
        command = MakePledge(drive, body, caller, key, body_hash, client)
        return keyed_response(await self._intake.submit(command))

    async def make_pledge_directly(self, request: Request) -> Response:
        """`make_pledge` without FastAPI's parameter resolution, which costs more than the endpoint."""
        caller = await authenticated_caller(request)
        require_scope(caller, "pledges")
        key = await required_key(await optional_key(request.headers.get("idempotency-key")))
        body = parse(PledgeRequest, await json_body(request))
        return await self.make_pledge(request, drive_ref(request.path_params["drive"]), body, caller, key)


_TRANSITION_DESCRIPTIONS: Final[Mapping[DriveTransition, str]] = {
    DriveTransition.OPEN: "Open a drive.\n\nFrom `draft` to `live`: it takes pledges from now on.",
    DriveTransition.PAUSE: "Pause a live drive.\n\nPledges are refused until it is resumed. Payments count.",
    DriveTransition.RESUME: "Resume a paused drive.",
    DriveTransition.CLOSE: "Close a drive for good.\n\nMoney that still arrives counts; pledges are refused.",
}


_PLEDGE_REFUSED: Final = (
    KeyMissing, Unauthorized, Forbidden, PartnerNotAllowed, NotFound, DriveClosed, CurrencyNotAccepted,
    NoExchangeRate, DrivePaused, RealMoneyOnTestDrive, AmountTooSmall, AmountTooLarge, KeyReused,
)  # fmt: skip


def routes(dependencies: Dependencies) -> APIRouter:
    """The public routes."""
    router = APIRouter()
    router.add_api_route(
        "/v1/drives/{drive}/pledges",
        dependencies.make_pledge,
        methods=["POST"],
        status_code=201,
        response_model=PledgeView,
        responses=documented(*_PLEDGE_REFUSED),
        route_class_override=direct_route(dependencies.make_pledge_directly),
    )
    menu = (AmountTooSmall, AmountTooLarge)
    _post(router, "/v1/drives", dependencies.make_drive, DriveView, SlugTaken, Invalid, *menu)
    kinds = (NotYourDrive, NotFound, SlugTaken, Invalid)
    _post(router, "/v1/drives/{drive}/creators", dependencies.add_creator, CreatorView, *kinds)
    for path, endpoint, view, *missing in (
        ("/v1/drives", dependencies.list_drives, DriveList),
        ("/v1/drives/{drive}", dependencies.show_drive, DriveView, NotFound),
        ("/v1/drives/{drive}/creators", dependencies.list_creators, CreatorList, NotFound),
    ):
        refused = documented(Unauthorized, Forbidden, *missing)
        router.add_api_route(path, endpoint, response_model=view, responses=refused)
    router.add_api_route(
        "/v1/drives/{drive}",
        dependencies.change_drive,
        methods=["PATCH"],
        response_model=DriveView,
        responses=documented(
            Unauthorized, Forbidden, NotYourDrive, NotFound, FieldImmutable, SlugTaken, Invalid, *menu
        ),
        route_class_override=JsonRoute,
    )
    router.add_api_route(
        "/v1/pledges",
        dependencies.list_pledges,
        response_model=PledgeList,
        responses=documented(Unauthorized, Forbidden, NotFound),
    )
    router.add_api_route(
        "/v1/pledges/{pledge}/cancel",
        dependencies.cancel_pledge,
        methods=["POST"],
        response_model=PledgeView,
        responses=documented(Unauthorized, Forbidden, NotFound, PledgeNotOpen),
    )
    for transition in DriveTransition:
        router.add_api_route(
            f"/v1/drives/{{drive}}/{transition.value}",
            dependencies.transition_endpoint(transition),
            methods=["POST"],
            name=f"{transition.value}_drive",
            description=_TRANSITION_DESCRIPTIONS[transition],
            response_model=DriveView,
            responses=documented(Unauthorized, Forbidden, NotYourDrive, NotFound, IllegalTransition),
        )
    return router


def _post(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    view: type,
    *kinds: type[Problem],
) -> None:
    """Add a POST route that creates a resource."""
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        status_code=201,
        response_model=view,
        responses=documented(Unauthorized, Forbidden, KeyReused, *kinds),
        route_class_override=JsonRoute,
    )


async def _keyed_request(request: Request, key: str | None) -> KeyedRequest:
    return KeyedRequest(key, hash_body(await request.body()))
