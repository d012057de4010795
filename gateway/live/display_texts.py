"""The approved names and messages of donors, read from leaderboard for the live stream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal

TIMEOUT_S: Final = 1.0

log = structlog.get_logger()


class DisplayTexts:
    """Reads display texts by pledge."""

    def __init__(self, leaderboard: ServiceClient, secret: str) -> None:
        self._leaderboard = leaderboard
        self._secret = secret

    async def of(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The display texts of the donations among rows of a log; empty where leaderboard is unavailable."""
        ids = [row["pledge"] for row in rows if row["type"] == "donation.counted" and row["pledge"]]
        if not ids:
            return {}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await post_internal(
                    self._leaderboard, self._secret, "/internal/displays", {"ids": ids}
                )
        except (ServiceUnavailable, TimeoutError) as error:
            log.warning("live.display_texts_unavailable", error=type(error).__name__)
            return {}
        found: Mapping[str, Any] = reply["data"]
        return found
