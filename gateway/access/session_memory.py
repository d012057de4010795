"""The sessions that a process read last, for a page that has to work while the database does not answer."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from backbone.clock import Clock
from gateway.tables import SessionRow

KEPT: Final = timedelta(minutes=15)
"""For so long after it was last read, a session is valid without the database."""
PAUSE: Final = timedelta(seconds=5)
"""After a failure the database is left alone for so long: a request is not to wait for it each time."""
MAX_ROWS: Final = 1_000


class SessionMemory:
    """Rows of sessions by their SHA-256, the one read last at the end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: OrderedDict[str, tuple[SessionRow, datetime]] = OrderedDict()
        self._paused_until = clock.now()

    @property
    def is_paused(self) -> bool:
        """Whether the database failed just now."""
        return self._clock.now() < self._paused_until

    def pause(self) -> None:
        """Note that the database failed."""
        self._paused_until = self._clock.now() + PAUSE

    def find(self, sha256: str) -> SessionRow | None:
        """A row that was read less than `KEPT` ago."""
        row, read_at = self._rows.get(sha256, (None, self._clock.now()))
        return row if self._clock.now() < read_at + KEPT else None

    def note(self, sha256: str, row: SessionRow | None) -> None:
        """Note what the database has: a row, or none."""
        self._rows.pop(sha256, None)
        if row is not None:
            self._rows[sha256] = row, self._clock.now()
        while len(self._rows) > MAX_ROWS:
            self._rows.popitem(last=False)
