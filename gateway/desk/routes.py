"""The routes of the moderation desk. Each acts with the key of the browser's session.

The page polls the messages of one state, tells with each poll which message its moderator looks at, and
sends decisions with the version that was seen. Pledges decides who may do what, as for the public API, and
its history tells what other moderators decided, whichever process of the gateway they use.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from backbone.http.problems import Forbidden, NotFound
from backbone.http.service_client import ServiceClient, ServiceResponse
from gateway.access.limits import ConcurrencyLimit
from gateway.access.sessions import NoSession, Session, Sessions
from gateway.console.login import login_page
from gateway.desk.presence import Presence, visible_name
from gateway.desk.render import page
from gateway.http.asgi import Request, Response, json_response
from gateway.http.router import Route, page_routes
from gateway.pages.headers import page_headers
from gateway.pages.languages import Voice, choose_voice
from gateway.pages.site import to_lower_case
from gateway.proxy.forwarding import json_body, response_of

SCOPE: Final = "moderation"
SHOWN: Final = 50
"""Messages on the page."""
NEWEST: Final = 20
"""Decisions that each poll tells of."""
ACTIONS: Final = frozenset({"approve", "hide", "pin", "unpin", "hold"})
_STATES: Final = frozenset({"held", "approved", "hidden", "pinned"})
_TOKEN: Final = re.compile(r"[a-z0-9_]{1,40}", re.ASCII)


class ModerationDesk:
    """The desk of every drive."""

    def __init__(
        self,
        pledges: ServiceClient,
        sessions: Sessions,
        presence: Presence,
        reads: ConcurrencyLimit,
        changes: ConcurrencyLimit,
    ) -> None:
        self._pledges = pledges
        self._sessions = sessions
        self._presence = presence
        self._reads = reads
        self._changes = changes

    def routes(self) -> list[Route]:
        """The page, its polls, decisions and histories."""
        own = "/moderate/{drive}/messages"
        return [
            *page_routes("/moderate/{drive}", self.show_page),
            Route("GET", own, self.list_messages),
            Route("GET", f"{own}/{{pledge}}/history", self.show_history),
            Route("POST", f"{own}/{{pledge}}/{{action}}", self.decide),
        ]

    async def show_page(self, request: Request) -> Response:
        """The desk, or the login that leads to it."""
        (drive,) = request.params
        if drive != drive.lower():
            return to_lower_case(request)
        try:
            session = await self._session(request)
        except (NoSession, Forbidden) as refused:
            address = f"{request.path}?{request.query}" if request.query else request.path
            return login_page(request, address, refused if isinstance(refused, Forbidden) else None)
        with self._reads:
            found = await self._get(f"/v1/drives/{drive}", session)
            listed = await self._get(f"/v1/drives/{drive}/messages", session, "limit=1")
        if found.status != 200 or listed.status != 200:
            return response_of(found if found.status != 200 else listed)
        shown = found.json()
        voice = _voice(request, shown["title"])
        body = page(voice, shown, session.csrf, _other_language(request, voice))
        return Response(200, page_headers("console"), body)

    async def list_messages(self, request: Request) -> Response:
        """The messages of a state, the other desks and their newest decisions."""
        session = await self._session(request)
        (drive,) = request.params
        query = dict(parse_qsl(request.query))
        state = query.get("state", "held")
        if state not in _STATES:
            raise NotFound
        with self._reads:
            sent = urlencode({"state": state, "limit": SHOWN})
            reply = await self._get(f"/v1/drives/{drive}/messages", session, sent)
        if reply.status != 200:
            return response_of(reply)
        found, voice = reply.json(), _voice(request, None)
        for message in found["data"]:
            message["amount_text"] = voice.money(message["amount"]["value"], message["amount"]["currency"])
        # Only now: who may not read the messages is not to appear among their moderators.
        decisions, others = await asyncio.gather(
            self._newest_decisions(drive, session), self._see(drive, query)
        )
        return _json({**found, "desks": others, "decisions": decisions})

    async def _newest_decisions(self, drive: str, session: Session) -> list[dict[str, Any]] | None:
        """The newest decisions, oldest first. None where pledges does not tell: its version may be older."""
        with self._reads:
            reply = await self._get(f"/v1/drives/{drive}/decisions", session, f"limit={NEWEST}")
        if reply.status != 200:
            return None
        return [
            {
                "pledge": one["pledge"],
                "version": one["version"],
                "state": one["to"],
                "name": visible_name(one["moderator"] or ""),
            }
            for one in reversed(reply.json()["data"])
        ]

    async def _see(self, drive: str, query: Mapping[str, str]) -> list[dict[str, str]] | None:
        """The other desks; None if they cannot be known."""
        desk = _known(query.get("desk", ""))
        if not desk:
            return []
        return await self._presence.see(drive, desk, query.get("name", ""), _known(query.get("looking", "")))

    async def show_history(self, request: Request) -> Response:
        """Who decided what about a message of this drive."""
        session = await self._session(request)
        drive, pledge = request.params
        query = {"drive": drive, "limit": str(SHOWN)}
        if after := dict(parse_qsl(request.query)).get("after"):
            query["after"] = after
        with self._reads:
            path = f"/v1/messages/{pledge}/history"
            return response_of(await self._get(path, session, urlencode(query)))

    async def decide(self, request: Request) -> Response:
        """Apply an action to a message of this drive. Raises `CsrfTokenWrong`, `CrossOrigin`."""
        session = await self._session(request)
        self._sessions.check_csrf(request, session, request.headers.get("x-csrf-token", ""))
        drive, pledge, action = request.params
        if action not in ACTIONS:
            raise NotFound
        body = await json_body(request)
        headers = {**session.bearer.signed, "content-type": "application/json"}
        with self._changes:
            path, query = f"/v1/messages/{pledge}/{action}", urlencode({"drive": drive})
            return response_of(
                await self._pledges.request("POST", path, headers=headers, query=query, body=body)
            )

    async def _session(self, request: Request) -> Session:
        """The browser's session, while the gateway's database does not answer too.

        Raises `NoSession`, and `Forbidden` without the scope.
        """
        session = await self._sessions.find(request, despite_outage=True)
        session.bearer.require(SCOPE)
        return session

    async def _get(self, path: str, session: Session, query: str = "") -> ServiceResponse:
        return await self._pledges.request("GET", path, headers=session.bearer.signed, query=query)


def _known(text: str) -> str:
    """`text` if it has the form of an id, else nothing."""
    return text if _TOKEN.fullmatch(text) else ""


def _voice(request: Request, title: object) -> Voice:
    query = dict(parse_qsl(request.query))
    return choose_voice(query, request.headers.get("accept-language", ""), title)


def _other_language(request: Request, voice: Voice) -> str:
    query = {**dict(parse_qsl(request.query)), "lang": voice.other}
    return f"{request.path}?{urlencode(query)}"


def _json(shown: Mapping[str, Any]) -> Response:
    body = json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return json_response(body, headers=[(b"cache-control", b"private, no-store")])
