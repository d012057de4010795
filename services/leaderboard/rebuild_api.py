"""Internal routes that compare a drive's sums with those built again, and replace them (`ataa rebuild`)."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import select

from backbone.database.database import Database
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from backbone.http.problems import NotFound
from services.leaderboard import queries
from services.leaderboard.rebuilding import Rebuilt, rebuild
from services.leaderboard.tables import drives

WRITE_S: Final = 60.0
"""How long replacing the sums may take; the drive's payments wait meanwhile."""


class RebuildWanted(Body):
    """A drive, by id or slug, and whether its sums are to be replaced."""

    drive: Text
    write: bool = False


def rebuild_routes(database: Database) -> APIRouter:
    """The routes under `/internal/rebuild`."""
    router = APIRouter(prefix="/internal/rebuild", include_in_schema=False)

    @router.post("/drives")
    async def list_drives(_caller: InternalDep) -> dict[str, Any]:
        """The ids of all drives."""
        known = select(drives.c.drive_id).where(drives.c.version > 0).order_by(drives.c.drive_id)
        async with database.reading() as session:
            return {"data": [row.drive_id for row in await session.execute(known)]}

    @router.post("")
    async def rebuild_drive(_caller: InternalDep, wanted: RebuildWanted) -> dict[str, Any]:
        """Compare a drive's sums with those built again, and replace them with `write`."""
        async with database.reading() as session:
            found = queries.existing(await queries.find_drive(session, wanted.drive))
        try:
            built = await _rebuilt(database, found.drive_id, write=wanted.write)
        except LookupError:
            raise NotFound("No such drive.") from None
        return {
            "drive": found.drive_id,
            "currency": found.currency,
            "sums": [one._asdict() for one in built.sums],
            "log": [one._asdict() for one in built.log],
            "written": built.written,
        }

    return router


async def _rebuilt(database: Database, drive_id: str, *, write: bool) -> Rebuilt:
    if not write:
        return await database.read_whole(lambda one: rebuild(one, drive_id, write=False))
    async with database.transaction(timeout_s=WRITE_S) as session:
        return await session.run_sync(lambda one: rebuild(one, drive_id, write=True))
