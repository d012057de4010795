"""The titles of the milestones that rows of a drive's log reach."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from gateway.live.view import DriveView

TIMEOUT_S: Final = 1.0

log = structlog.get_logger()


class Milestones:
    """The milestones of drives, as their newest snapshots or pledges show them."""

    def __init__(self, pledges: ServiceClient, secret: str) -> None:
        self._pledges = pledges
        self._secret = secret

    async def of(self, view: DriveView, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The drive's milestones, among them those that `rows` reach where pledges answers in time.

        A milestone that was added after its amount was raised is reached at once, which may be before the
        snapshot that has its title.
        """
        reached = [row["amount"] for row in rows if row["type"] == "milestone.reached"]
        if not reached:
            return ()
        shown = [one["amount"] for one in view.milestones]
        return view.milestones if all(one in shown for one in reached) else await self._asked(view)

    async def _asked(self, view: DriveView) -> Sequence[Mapping[str, Any]]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await post_internal(
                    self._pledges, self._secret, "/internal/drives", {"refs": [view.drive_id]}
                )
        except (ServiceUnavailable, TimeoutError) as error:
            log.warning("live.milestones_unavailable", error=type(error).__name__)
            return view.milestones
        found: Mapping[str, Any] = reply["data"].get(view.drive_id) or {}
        return [*view.milestones, *found.get("milestones", ())]
