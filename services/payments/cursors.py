"""Where background work goes on: positions by name, kept in the database (table `lanes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update

from backbone.database.database import Database
from services.payments.statements import insert_new
from services.payments.tables import CURSORS


@dataclass(frozen=True, slots=True)
class Position:
    """A number or moment, and the id of Stripe's after which a listing goes on (None: at its beginning)."""

    cursor: int
    resume_after: str | None = None


async def read_position(database: Database, name: str) -> Position | None:
    """The position kept under `name`; None where there is none yet."""
    async with database.reading() as session:
        row = (await session.execute(select(CURSORS).where(CURSORS.c.name == name))).first()
    return None if row is None else Position(row.cursor, row.resume_after)


async def save_positions(database: Database, positions: Mapping[str, Position]) -> None:
    """Keep positions; a power cut may lose the last ones, and the work since them is then repeated."""
    async with database.lossy_transaction() as session:
        for name, position in sorted(positions.items()):
            values = {"cursor": position.cursor, "resume_after": position.resume_after}
            made = await session.execute(insert_new(session, CURSORS, "name"), [{"name": name, **values}])
            if made.first() is None:
                await session.execute(update(CURSORS).where(CURSORS.c.name == name).values(values))
