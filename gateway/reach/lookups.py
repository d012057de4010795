"""What the public pages show besides a drive's totals: the drive, a creator and their place, the teams.

Each is at most `CACHE_S` old. A page without teams or places is still a page: the leaderboard service may be
unavailable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from gateway.access.keys import Bearer
from gateway.access.limits import ConcurrencyLimit
from gateway.pages.site import ShortLivedCache

MAX_TEAMS: Final = 5

_REF: Final = re.compile("[a-z0-9_-]{1,64}", re.ASCII)

Found = Mapping[str, Any]


class Lookups:
    """Reads of pledges and leaderboard for the public pages."""

    def __init__(
        self,
        pledges: ServiceClient,
        leaderboard: ServiceClient,
        secret: str,
        public: Bearer,
        concurrency_limit: ConcurrencyLimit,
    ) -> None:
        self._pledges = pledges
        self._leaderboard = leaderboard
        self._secret = secret
        self._public = public
        self._concurrency_limit = concurrency_limit
        self._drives = ShortLivedCache[Found | None]()
        self._creators = ShortLivedCache[Found | None]()
        self._boards = ShortLivedCache[Sequence[Found]]()

    async def drive(self, ref: str) -> Found | None:
        """The drive with this id or slug, unless it is a draft; raises `ServiceUnavailable`, `Overloaded`."""
        held = self._drives.get(ref)
        if held is None:
            reply = await self._ask("/internal/drives", ref)
            held = (self._drives.keep(ref, reply if reply and reply.get("state") != "draft" else None),)
        return held[0]

    async def creator(self, drive_id: str, name: str) -> Found | None:
        """The drive's creator with this id or slug; raises `ServiceUnavailable`, `Overloaded`."""
        if _REF.fullmatch(name) is None:
            return None
        ref = f"{drive_id}/{name}"
        held = self._creators.get(ref)
        return held[0] if held else self._creators.keep(ref, await self._ask("/internal/creators", ref))

    async def teams(self, drive_id: str) -> Sequence[Found]:
        """The first teams of the drive's board; none where it cannot be read."""
        return await self._board(f"/v1/drives/{drive_id}/leaderboards/teams", f"limit={MAX_TEAMS}")

    async def place(self, drive_id: str, creator_id: str) -> Found | None:
        """The creator's place on the drive's board; None without one, or where it cannot be read."""
        rows = await self._board(
            f"/v1/drives/{drive_id}/leaderboards/creators", f"limit=1&around={creator_id}"
        )
        return next((row for row in rows if row.get("creator") == creator_id), None)

    async def _ask(self, path: str, ref: str) -> Found | None:
        with self._concurrency_limit:
            reply = await post_internal(self._pledges, self._secret, path, {"refs": [ref]})
        found: Found | None = reply["data"].get(ref)
        return found

    async def _board(self, path: str, query: str) -> Sequence[Found]:
        key = f"{path}?{query}"
        held = self._boards.get(key)
        return held[0] if held else self._boards.keep(key, await self._read_board(path, query))

    async def _read_board(self, path: str, query: str) -> Sequence[Found]:
        try:
            with self._concurrency_limit:
                reply = await self._leaderboard.request("GET", path, headers=self._public.signed, query=query)
        except (ServiceUnavailable, Overloaded):
            return ()
        rows: Sequence[Found] = reply.json()["data"] if reply.status == 200 else ()
        return rows
