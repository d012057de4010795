"""The words that go with gifts: approved display text, copied from pledges into an erasable table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import select

from backbone.database import Database
from backbone.peer import Peer, PeerUnavailable, ask
from services.leaderboard.statements import statements
from services.leaderboard.tables import words

ASK_S: Final = 2.0
"""How long to wait for pledges: totals without names are better than late totals."""

AGAIN_S: Final = 1.0
"""How long not to ask again after an attempt that failed."""

MOST: Final = 500
"""Gifts asked for at once."""

log = structlog.get_logger()


class Shown(NamedTuple):
    """What is shown of a gift's giver; without a name, "anonymous"."""

    name: str | None
    message: str | None


ANONYMOUS: Final = Shown(None, None)


class Words:
    """What pledges approved for showing, a pledge; asked for once and then kept."""

    def __init__(self, database: Database, pledges: Peer, secret: str) -> None:
        self._database = database
        self._pledges = pledges
        self._secret = secret
        self._not_before = 0.0

    async def of(self, pledge_ids: Iterable[str]) -> dict[str, Shown]:
        """The words of these pledges, asking pledges for those not yet kept; some may be missing."""
        wanted = list(dict.fromkeys(pledge_ids))
        async with self._database.reading() as session:
            rows = await session.execute(select(words).where(words.c.pledge_id.in_(wanted)))
            kept: dict[str, Shown] = {row.pledge_id: Shown(row.name, row.message) for row in rows}
        return kept | await self.fetch(one for one in wanted if one not in kept)

    async def fetch(self, pledge_ids: Iterable[str]) -> dict[str, Shown]:
        """Ask pledges for these and keep them; nothing while pledges cannot be asked."""
        wanted = list(dict.fromkeys(pledge_ids))[:MOST]
        now = asyncio.get_running_loop().time()
        if not wanted or now < self._not_before:
            return {}
        try:
            async with asyncio.timeout(ASK_S):
                answer = await ask(self._pledges, self._secret, "/internal/words", {"ids": wanted})
        except (PeerUnavailable, TimeoutError) as error:
            self._not_before = now + AGAIN_S
            log.warning("words.unavailable", reason=str(error))
            return {}
        found = {pledge_id: _shown(answer["data"].get(pledge_id)) for pledge_id in wanted}
        await self._keep(found)
        return found

    async def _keep(self, found: Mapping[str, Shown]) -> None:
        # In one order, as everywhere: the stream's words and a snapshot's are kept at the same moment.
        rows = [{"pledge_id": one, **shown._asdict()} for one, shown in sorted(found.items())]
        async with self._database.lossy_transaction() as session:
            await session.execute(statements(session.get_bind()).keep_words, rows)


def _shown(said: dict[str, Any] | None) -> Shown:
    return Shown(said["name"], said["message"]) if said else ANONYMOUS
