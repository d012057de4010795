"""Republishing of drives whose newest snapshot lacks donors' texts that have arrived since.

A snapshot never waits for a text. Overlays announce a donation once, with the name it is first shown under,
so a donation without its text is left out of `recent` for `TEXTS_GRACE_S` and is shown as anonymous after
that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final

from backbone.database.database import Database
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.freshness import ChangedDrives
from services.leaderboard.revisions import raise_revisions
from services.leaderboard.totals import DriveFigures

TEXTS_INTERVAL_S: Final = 0.25
"""Between two rounds of republishing."""
TEXTS_GRACE_S: Final = 2.0
"""How long a donation without its text is left out of `recent`."""


class TextRepublishing:
    """Tracks the texts that the newest snapshots lack; times are on the event loop's clock."""

    def __init__(self, database: Database, display_texts: DisplayTexts, changed: ChangedDrives) -> None:
        self._database = database
        self._display_texts = display_texts
        self._changed = changed
        self._missing: dict[str, dict[str, float]] = {}
        """By drive, the pledges whose texts its newest snapshot lacks, each with its grace period's end."""
        self._hidden: dict[str, float] = {}
        """Drives whose newest snapshot leaves donations out, with the earliest end of their grace periods."""
        self._due: dict[str, None] = {}
        """Drives to republish, oldest first."""
        self._republished_at = 0.0
        display_texts.on_stored = self._note_stored

    def request_missing(self, figures: DriveFigures) -> Collection[str]:
        """Request the texts that a snapshot about to be published lacks; return the pledges it leaves out.

        A donation whose texts were moderated since they were fetched is not left out.

        A text that is stored from now on makes the drive due, even before the snapshot is published.
        """
        drive_id, now = figures.drive_id, asyncio.get_running_loop().time()
        before = self._missing.pop(drive_id, {})
        self._hidden.pop(drive_id, None)
        self._due.pop(drive_id, None)
        missing = {one: before.get(one, now + TEXTS_GRACE_S) for one in figures.without_texts}
        missing = dict.fromkeys(figures.with_outdated_texts, now) | missing  # a grace period goes on
        if not missing:
            return ()
        self._missing[drive_id] = missing
        self._display_texts.request(missing)
        hidden = {one: until for one, until in missing.items() if now < until}
        if hidden:
            self._hidden[drive_id] = min(hidden.values())
        return hidden

    def _note_stored(self, pledge_ids: Collection[str]) -> None:
        stored = set(pledge_ids)
        due = [drive_id for drive_id, missing in self._missing.items() if not stored.isdisjoint(missing)]
        if due:
            self._due |= dict.fromkeys(due)
            self._changed.news.set()

    def next_due(self) -> float:
        """When `republish_due` next has work, infinity if nothing is pending."""
        due = [self._republished_at + TEXTS_INTERVAL_S] if self._due else []
        return min((*due, *self._hidden.values()), default=math.inf)

    async def republish_due(self) -> None:
        """Mark drives as changed whose missing texts arrived, or whose grace period ended.

        At most once each `TEXTS_INTERVAL_S`. The log does not record texts, so `revision` rises.
        """
        now = asyncio.get_running_loop().time()
        for drive_id in [one for one, until in self._hidden.items() if until <= now]:
            del self._hidden[drive_id]
            self._due[drive_id] = None
        if not self._due or now < self._republished_at + TEXTS_INTERVAL_S:
            return
        due, self._due, self._republished_at = self._due, {}, now
        try:
            await raise_revisions(self._database, self._changed, due)
        except BaseException:
            self._due |= due
            raise

    def keep_only(self, owns: Callable[[str], bool]) -> None:
        """Forget the drives that `owns` rejects."""
        self._missing = {one: missing for one, missing in self._missing.items() if owns(one)}
        self._hidden = {one: until for one, until in self._hidden.items() if owns(one)}
        self._due = dict.fromkeys(filter(owns, self._due))
