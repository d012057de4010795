"""The page at `/`: what runs here, the live drives, and the way to the documentation and the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.version import VERSION
from gateway.access.limits import ConcurrencyLimit
from gateway.console.render import render
from gateway.http.asgi import Request, Response, json_response
from gateway.http.router import Route
from gateway.live.hub import Hub
from gateway.pages.headers import page_headers
from gateway.pages.languages import Voice, choose_voice, localised
from gateway.pages.site import ShortLivedCache

MAX_SHOWN: Final = 20
MAX_LOOKED_UP: Final = 50
"""The newest drives, of which those that are live are shown."""

Json = dict[str, Any]


class Root:
    """Serves `/`, as HTML or, where the client accepts JSON and no HTML, as JSON."""

    def __init__(
        self, hub: Hub, pledges: ServiceClient, secret: str, concurrency_limit: ConcurrencyLimit
    ) -> None:
        self._hub = hub
        self._pledges = pledges
        self._secret = secret
        self._concurrency_limit = concurrency_limit
        self._found = ShortLivedCache[list[Json]]()

    def routes(self) -> list[Route]:
        """The page."""
        return [Route("GET", "/", self.show)]

    async def show(self, request: Request) -> Response:
        """What runs here. Without pledges the page says so in place of the drives."""
        try:
            drives: list[Json] | None = await self._live_drives()
        except (ServiceUnavailable, Overloaded):
            drives = None
        accepted = request.headers.get("accept", "")
        if "application/json" in accepted and "text/html" not in accepted:
            return json_response(
                _as_json(drives), headers=[(b"vary", b"accept"), (b"cache-control", b"no-cache")]
            )
        query = dict(parse_qsl(request.query[:2000]))
        voice = choose_voice(query, request.headers.get("accept-language", ""), None)
        body = render(
            "root.html",
            "root",
            voice,
            version=VERSION,
            drives=None if drives is None else [_shown(one, voice) for one in drives],
            other_language=f"/?lang={voice.other}",
        )
        return Response(200, [*page_headers("root"), (b"vary", b"accept, accept-language")], body)

    async def _live_drives(self) -> list[Json]:
        """The totals of live drives, each with `test`, the newest drives first; at most two seconds old.

        Raises `ServiceUnavailable`, `Overloaded`.
        """
        if (held := self._found.get("")) is not None:
            return held[0]
        views = {view.drive_id: view for view in self._hub.newest(MAX_LOOKED_UP)}
        with self._concurrency_limit:
            reply = await post_internal(
                self._pledges, self._secret, "/internal/drives", {"refs": list(views)}
            )
        freshness = self._hub.freshness
        live: list[Json] = []
        for drive_id, view in views.items():
            drive: Mapping[str, Any] = reply["data"].get(drive_id) or {}
            if drive.get("state") == "live" and len(live) < MAX_SHOWN:
                totals = json.loads(view.bytes("brief", freshness.state(view), freshness))
                live.append({**totals, "test": drive.get("test") is True})
        return self._found.keep("", live)


def _shown(drive: Json, voice: Voice) -> Json:
    raised, goal = (voice.money(drive[name]["value"], drive[name]["currency"]) for name in ("raised", "goal"))
    return {
        "slug": drive["slug"],
        "title": localised(drive["title"], voice.lang) or drive["slug"],
        "raised": raised,
        "goal": goal,
        "gifts": drive["donations"],
        "percent": min(100, int(drive["percent"])),
        "test": drive["test"],
    }


def _as_json(drives: list[Json] | None) -> bytes:
    fields = ("drive", "slug", "title", "raised", "goal", "donations", "test")
    shown = None if drives is None else [{name: one[name] for name in fields} for one in drives]
    links = {"docs": "/docs", "openapi": "/openapi.json", "events": "/events", "console": "/console"}
    return json.dumps(
        {"name": "ataa", "version": VERSION, **links, "live": shown}, ensure_ascii=False
    ).encode()
