"""The desk's control of a drive's alerts, with the key of the browser's session.

The page reads the state from the drive's totals, which the overlays obey. Pledges decides who may do what.
"""

from __future__ import annotations

from typing import Final

from backbone.http.problems import NotFound
from backbone.http.service_client import ServiceClient
from gateway.access.limits import ConcurrencyLimit
from gateway.access.sessions import Sessions
from gateway.desk.routes import SCOPE
from gateway.http.asgi import Request, Response
from gateway.http.router import Route
from gateway.proxy.forwarding import json_body, response_of

ACTIONS: Final = frozenset({"pause", "resume", "skip", "replay"})


class AlertDesk:
    """Pauses, skips and replays the alerts of every drive."""

    def __init__(self, pledges: ServiceClient, sessions: Sessions, changes: ConcurrencyLimit) -> None:
        self._pledges = pledges
        self._sessions = sessions
        self._changes = changes

    def routes(self) -> list[Route]:
        """One route for every action."""
        return [Route("POST", "/moderate/{drive}/alerts/{action}", self.control)]

    async def control(self, request: Request) -> Response:
        """Apply an action to a drive's alerts.

        Raises `NoSession`, `Forbidden` without the scope, `CsrfTokenWrong` and `CrossOrigin`.
        """
        session = await self._sessions.find(request, despite_outage=True)
        session.bearer.require(SCOPE)
        self._sessions.check_csrf(request, session, request.headers.get("x-csrf-token", ""))
        drive, action = request.params
        if action not in ACTIONS:
            raise NotFound
        body = await json_body(request)
        headers = {**session.bearer.signed, "content-type": "application/json"}
        with self._changes:
            path = f"/v1/drives/{drive}/alerts/{action}"
            return response_of(await self._pledges.request("POST", path, headers=headers, body=body))
