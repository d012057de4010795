"""A gateway over HTTP, in front of a real leaderboard with a drive's log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from backbone.bus.sqlite import SqliteBus
from backbone.clock import FrozenClock, SystemClock
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from gateway.transparency.note_keys import NoteSigner
from services.leaderboard.app import compose
from services.leaderboard.settings import LeaderboardSettings
from tests.gateway import harness
from tests.gateway.harness import PLEDGE, SECRET, Harness
from tests.leaderboard.builders import DRIVE, FakePledges, drive, handle_events, open_database
from tests.leaderboard.log_trees import append, rows_of

SIGNER = NoteSigner("ataa.test", bytes(range(32)))
PREFIX = f"/v1/drives/{DRIVE}"
TOKEN = f"token-of-{PLEDGE}"


@dataclass
class ServedLog:
    """The gateway, and the database of its log."""

    gateway: Harness
    database: Database
    clock: FrozenClock

    async def append(self, rows: Sequence[dict[str, Any]]) -> None:
        await append(self.database, rows)

    async def read(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        async with self.gateway.session.get(path) as reply:
            return (
                reply.status,
                {name.lower(): value for name, value in reply.headers.items()},
                await reply.read(),
            )

    def expire_head(self) -> None:
        """Have the gateway make a new head."""
        self.clock.move(1.5)

    async def checkpoint(self) -> list[str]:
        """The lines of the newest checkpoint."""
        status, _, body = await self.read(f"{PREFIX}/checkpoint")
        assert status == 200, body
        return body.decode().split("\n")


def gifts(count: int, *, epoch: int = 1, ours: int = 1, amount: int = 2500) -> list[dict[str, Any]]:
    """Rows of gifts, of which the one with sequence `ours` is that of the gateway's pledge."""
    return rows_of(count, epoch=epoch, amount=amount, pledges={ours: PLEDGE})


@asynccontextmanager
async def served_log(folder: Path, signer: NoteSigner | None = SIGNER) -> AsyncIterator[ServedLog]:
    """A drive without rows."""
    async with open_database(folder) as database:
        await handle_events(database, drive(state="draft"))
        settings = LeaderboardSettings(
            data_dir=folder, internal_secret=SecretStr(SECRET), database_synchronous="OFF"
        )
        bus = SqliteBus(folder / "leaderboards-bus.db", synchronous="OFF")
        leaderboard = compose(settings, bus, InProcessServiceClient(FakePledges()))
        key = SecretStr(signer.encode() if signer else "")
        clock = FrozenClock(SystemClock().now())
        try:
            async with harness.gateway(
                folder, clock, leaderboard_app=leaderboard.app, log_key=key
            ) as gateway:
                gateway.entries[PLEDGE]["pledge"]["drive"] = DRIVE
                yield ServedLog(gateway, database, clock)
        finally:
            await leaderboard.close()
            await bus.close()
