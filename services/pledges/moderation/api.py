"""The HTTP API of moderation (docs/api-guide.md): messages of a drive, decisions and their history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final

from fastapi import Query, Response
from fastapi.routing import APIRouter
from pydantic import StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone.contracts.pledges import MessageState
from backbone.database.database import Database
from backbone.http.caller import Caller, CallerDep, NotYourDrive
from backbone.http.problems import Forbidden, NotFound, Unauthorized, documented
from services.pledges.api_parameters import After, DriveFilter, DriveRef, Limit, PledgeRef
from services.pledges.moderation.decisions import Decisions, authorized
from services.pledges.moderation.history import (
    CURSOR,
    DecisionList,
    DriveDecisionList,
    Place,
    drive_decisions,
    message_history,
)
from services.pledges.moderation.messages import (
    DecidedMessageView,
    MessageList,
    message_page,
    message_row,
)
from services.pledges.moderation.states import Action
from services.pledges.problems import IllegalDecision, MessageDecided
from services.pledges.queries import Queries
from services.pledges.request_parsing import OptionalJsonRoute
from services.pledges.requests import DecisionRequest
from services.pledges.views import json_response

SCOPE: Final = "moderation"

_DESCRIPTIONS: Final[Mapping[Action, str]] = {
    Action.APPROVE: "Approve a message.\n\nIt is shown, also if it has a link. A pinned one stays pinned.",
    Action.HIDE: "Hide a message.\n\nThe donation counts and is shown as anonymous, without a message.",
    Action.PIN: "Pin a message.\n\nIt is approved, and screens may show it longer.",
    Action.UNPIN: "Unpin a message.\n\nIt stays approved.",
    Action.HOLD: "Hold a message.\n\nIt is to be decided again, and not shown meanwhile.",
}

StateFilter = Annotated[MessageState, Query(description="Those in this state.")]
HistoryAfter = Annotated[
    Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
DecisionsAfter = Annotated[
    Annotated[str, StringConstraints(pattern=f"^{CURSOR}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]


class ModerationRoutes:
    """The endpoints, and what they call."""

    def __init__(self, database: Database, queries: Queries, decisions: Decisions) -> None:
        self._database = database
        self._queries = queries
        self._decisions = decisions

    async def list_messages(
        self,
        drive: DriveRef,
        caller: CallerDep,
        state: StateFilter = MessageState.HELD,
        after: After = None,
        limit: Limit = 25,
    ) -> Response:
        """List a drive's names and messages in a state, newest first."""
        drive_id = await self._own_drive(drive, caller)
        async with self._database.reading() as session:
            return json_response(await message_page(session, drive_id, state, after, limit))

    async def list_decisions(
        self, drive: DriveRef, caller: CallerDep, after: DecisionsAfter = None, limit: Limit = 25
    ) -> Response:
        """List the decisions about a drive's messages, newest first."""
        drive_id = await self._own_drive(drive, caller)
        place = None if after is None else Place.read(after)
        async with self._database.reading() as session:
            return json_response(await drive_decisions(session, drive_id, place, limit))

    async def _own_drive(self, drive: str, caller: Caller) -> str:
        """The id of a drive that `caller` may moderate. Raises NotFound, Forbidden, NotYourDrive."""
        caller.require(SCOPE)
        found = await self._queries.drive(drive)
        if caller.mode == "test" and not found["test"]:
            raise Forbidden("A test key works on test drives only.")
        caller.require_owned(found["partner"])
        return str(found["id"])

    async def show_history(
        self,
        pledge: PledgeRef,
        caller: CallerDep,
        drive: DriveFilter = None,
        after: HistoryAfter = None,
        limit: Limit = 25,
    ) -> Response:
        """List the decisions about a message, oldest first.

        The first, version 0, is that of the filters when the pledge was made.
        """
        caller.require(SCOPE)
        version = None if after is None else int(after)
        async with self._database.reading() as session:
            row = authorized(await message_row(session, pledge, drive), caller)
            return json_response(await message_history(session, row, version, limit))

    def decision_endpoint(self, action: Action) -> Callable[..., Awaitable[Response]]:
        """The endpoint of one action."""

        async def decide(
            pledge: PledgeRef,
            caller: CallerDep,
            request: DecisionRequest | None = None,
            drive: DriveFilter = None,
        ) -> Response:
            caller.require(SCOPE)
            wanted = request or DecisionRequest()
            return json_response(await self._decisions.decide(pledge, action, wanted, caller, drive))

        return decide


def moderation_routes(moderation: ModerationRoutes) -> APIRouter:
    """The public routes of moderation."""
    router = APIRouter()
    refused = (Unauthorized, Forbidden, NotYourDrive, NotFound)
    router.add_api_route(
        "/v1/drives/{drive}/messages",
        moderation.list_messages,
        response_model=MessageList,
        responses=documented(*refused),
    )
    router.add_api_route(
        "/v1/drives/{drive}/decisions",
        moderation.list_decisions,
        response_model=DriveDecisionList,
        responses=documented(*refused),
    )
    router.add_api_route(
        "/v1/messages/{pledge}/history",
        moderation.show_history,
        response_model=DecisionList,
        responses=documented(*refused),
    )
    for action in Action:
        router.add_api_route(
            f"/v1/messages/{{pledge}}/{action.value}",
            moderation.decision_endpoint(action),
            methods=["POST"],
            name=f"{action.value}_message",
            description=_DESCRIPTIONS[action],
            response_model=DecidedMessageView,
            responses=documented(*refused, IllegalDecision, MessageDecided),
            route_class_override=OptionalJsonRoute,
        )
    return router
