"""The HTTP API of the alerts on a drive's overlays, which moderators control (docs/api-guide.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import Response
from fastapi.routing import APIRouter
from pydantic import BaseModel

from backbone.clock import rfc3339
from backbone.contracts.pledges import AlertControl, AlertsControlled
from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import DriveIdView, PledgeIdView, TimestampView, with_examples
from backbone.http.problems import Forbidden, NotFound, Unauthorized, documented
from backbone.ids import PledgeId
from services.pledges.api_parameters import DriveRef
from services.pledges.moderation.alerts import AlertAction, AlertControls
from services.pledges.moderation.api import SCOPE
from services.pledges.problems import DonationNotCounted
from services.pledges.request_parsing import OptionalJsonRoute
from services.pledges.requests import ReplayRequest
from services.pledges.views import json_response

_DESCRIPTIONS: Final[Mapping[AlertAction, str]] = {
    AlertAction.PAUSE: "Pause alerts.\n\nOverlays show no new alert until `resume`; donations wait for it.",
    AlertAction.RESUME: "Resume alerts.\n\nWhat waited is shown.",
    AlertAction.SKIP: "Skip alerts.\n\nOverlays remove those on the screen.",
}


class SkipView(BaseModel):
    """The newest skip."""

    version: int
    at: TimestampView


class ReplayView(BaseModel):
    """The newest replay; without a pledge each screen shows its own last alert again."""

    version: int
    at: TimestampView
    pledge: PledgeIdView | None


class AlertsView(BaseModel):
    """How the drive's overlays are to show alerts; `version` counts the changes."""

    model_config = with_examples(
        {
            "drive": "drv_01frtz5n00000000000000000a",
            "version": 2,
            "paused": True,
            "skip": {"version": 1, "at": "2030-01-07T18:00:00.000Z"},
            "replay": None,
        }
    )

    drive: DriveIdView
    version: int
    paused: bool
    skip: SkipView | None
    replay: ReplayView | None


def alerts_json(state: AlertsControlled) -> dict[str, Any]:
    """A state in the shape of `AlertsView`."""
    skip, replay = state.skip, state.replay
    return {
        "drive": state.drive_id,
        "version": state.version,
        "paused": state.paused,
        "skip": None if skip is None else _made(skip),
        "replay": None if replay is None else {**_made(replay), "pledge": replay.pledge_id},
    }


def _made(control: AlertControl) -> dict[str, Any]:
    return {"version": control.version, "at": rfc3339(control.at)}


class AlertRoutes:
    """The endpoints, and what they call."""

    def __init__(self, controls: AlertControls) -> None:
        self._controls = controls

    def endpoint(self, action: AlertAction) -> Callable[[DriveRef, CallerDep], Awaitable[Response]]:
        """The endpoint of an action that needs no body."""

        async def control_alerts(drive: DriveRef, caller: CallerDep) -> Response:
            caller.require(SCOPE)
            return json_response(alerts_json(await self._controls.control(drive, action, caller)))

        return control_alerts

    async def replay(
        self, drive: DriveRef, caller: CallerDep, request: ReplayRequest | None = None
    ) -> Response:
        """Show an alert again.

        That of the named pledge, with its name and message as shown now. Without a pledge each screen
        shows its own last one.
        """
        caller.require(SCOPE)
        pledge = PledgeId(request.pledge) if request and request.pledge else None
        state = await self._controls.control(drive, AlertAction.REPLAY, caller, pledge)
        return json_response(alerts_json(state))


def alert_routes(alerts: AlertRoutes) -> APIRouter:
    """The public routes of alerts."""
    router = APIRouter()
    refused = (Unauthorized, Forbidden, NotYourDrive, NotFound)
    for action, description in _DESCRIPTIONS.items():
        router.add_api_route(
            f"/v1/drives/{{drive}}/alerts/{action.value}",
            alerts.endpoint(action),
            methods=["POST"],
            name=f"{action.value}_alerts",
            description=description,
            response_model=AlertsView,
            responses=documented(*refused),
        )
    router.add_api_route(
        "/v1/drives/{drive}/alerts/replay",
        alerts.replay,
        methods=["POST"],
        name="replay_alert",
        response_model=AlertsView,
        responses=documented(*refused, DonationNotCounted),
        route_class_override=OptionalJsonRoute,
    )
    return router
