"""What the gateway asks leaderboard of a log's tree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backbone.http.caller import sign_caller
from backbone.http.problems import NotFound
from backbone.http.service_client import ServiceClient, ServiceResponse, ServiceUnavailable
from gateway.transparency.tile_paths import TileRef


class LogClient:
    """A drive is named by id or slug, its present epoch by None.

    Each call raises `NotFound` for what the log does not have, and `ServiceUnavailable`.
    """

    def __init__(self, leaderboard: ServiceClient, secret: str) -> None:
        self._leaderboard = leaderboard
        self._secret = secret

    async def head(self, drive: str, epoch: int | None, since: int | None) -> Mapping[str, Any]:
        """The newest head, unsigned, with the proof that it continues the one of size `since`."""
        found: Mapping[str, Any] = (await self._post("head", drive, epoch, since=since)).json()
        return found

    async def tile(self, drive: str, epoch: int | None, ref: TileRef) -> bytes:
        """A tile, or a bundle of entries."""
        asked = {"level": ref.level, "number": ref.number, "width": ref.width}
        return (await self._post("tile", drive, epoch, **asked)).body

    async def gift(self, drive: str, epoch: int, pledge_id: str, size: int) -> Mapping[str, Any] | None:
        """The row that counts a pledge's payment, with its path in the tree of `size`, None until it is."""
        reply = await self._post("gift", drive, epoch, pledge=pledge_id, size=size)
        found: Mapping[str, Any] | None = reply.json()["gift"]
        return found

    async def _post(self, name: str, drive: str, epoch: int | None, **asked: Any) -> ServiceResponse:
        headers = {
            "content-type": "application/json",
            **sign_caller(self._secret, partner="ataa", scopes=("internal",)),
        }
        body = json.dumps({"drive": drive, "epoch": epoch, **asked}).encode()
        reply = await self._leaderboard.request("POST", f"/internal/log/{name}", headers=headers, body=body)
        if reply.status in (404, 422):
            raise NotFound("The log has nothing there.")
        if reply.status != 200:
            raise ServiceUnavailable(f"/internal/log/{name} answered {reply.status}")
        return reply
