"""A lease: one process at a time does a thing; another takes over once the holder is silent."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import or_, update

from backbone.clock import Clock
from backbone.database import Database
from services.payments.statements import inserting_new
from services.payments.tables import LANES

LASTS: Final = timedelta(seconds=10)
RENEWED_BEFORE: Final = timedelta(seconds=5)
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Lease:
    """The lease called `name`. On SQLite the lock on the data directory stands for it."""

    def __init__(self, database: Database, name: str, clock: Clock) -> None:
        self._database = database
        self._name = name
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._until = NEVER

    async def held(self) -> bool:
        """Whether this process holds the lease; takes or renews it when due."""
        if self._database.is_sqlite:
            return True
        now = self._clock.now()
        if self._until - now > RENEWED_BEFORE:
            return True
        async with self._database.transaction() as session:
            row = {"name": self._name, "holder": self._holder, "until": now + LASTS, "cursor": 0}
            made = await session.execute(inserting_new(session, LANES, "name"), [row])
            if made.first() is None:
                mine_or_free = or_(LANES.c.holder == self._holder, LANES.c.until < now)
                taken = await session.execute(
                    update(LANES)
                    .where(LANES.c.name == self._name, mine_or_free)
                    .values(holder=self._holder, until=now + LASTS)
                    .returning(LANES.c.name)
                )
                if taken.first() is None:
                    self._until = NEVER
                    return False
        self._until = now + LASTS
        return True
