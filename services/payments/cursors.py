"""Positions of background work by name, stored in the database (table `lanes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select, update

from backbone.database.database import Database
from services.payments.statements import insert_new
from services.payments.tables import CURSORS


@dataclass(frozen=True, slots=True)
class Position:
    """A number or a time in microseconds, and the Stripe id after which a listing resumes (None: start)."""

    cursor: int
    resume_after: str | None = None


async def read_position(database: Database, name: str) -> Position | None:
    """The position stored under `name`; None where there is none yet."""
    async with database.reading() as session:
        row = (await session.execute(_FIND, {"of_name": name})).first()
    return None if row is None else Position(row.cursor, row.resume_after)


async def save_positions(database: Database, positions: Mapping[str, Position]) -> None:
    """Store positions. A power cut may lose the latest ones; the work after them is then repeated."""
    async with database.lossy_transaction() as session:
        for name, position in sorted(positions.items()):
            values = {"cursor": position.cursor, "resume_after": position.resume_after}
            made = await session.execute(insert_new(session, CURSORS, "name"), [{"name": name, **values}])
            if made.first() is None:
                await session.execute(_UPDATE, {"of_name": name, **values})


_FIND: Final = select(CURSORS).where(CURSORS.c.name == bindparam("of_name"))
_UPDATE: Final = update(CURSORS).where(CURSORS.c.name == bindparam("of_name"))
