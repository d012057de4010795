"""The pledges of a drive in a period, by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select

from backbone import ids
from backbone.database.database import Database
from services.pledges.tables import PLEDGES

PAGE: Final = 2_000
MAX_PAGES: Final = 500
"""Pledges of one read, and reads of one funnel: a million pledges, those of other drives included."""

_PAGE: Final = (
    select(PLEDGES.c.id, PLEDGES.c.drive_id, PLEDGES.c.platform, PLEDGES.c.campaign)
    .where(PLEDGES.c.id > bindparam("after"), PLEDGES.c.id < bindparam("before"))
    .order_by(PLEDGES.c.id)
    .limit(PAGE)
)


async def pledged_by_source(
    database: Database, drive_id: str, since: datetime, until: datetime
) -> Mapping[str, Any]:
    """The pledges made from `since` until before `until`; `complete` is false where there are too many.

    Ids are ordered by time, so that no index of the sources is needed, which every pledge would have to
    update. Read in short pages: SQLite reads on the event loop.
    """
    counted: Counter[tuple[str | None, str | None]] = Counter()
    after, before = ids.lowest("plg", since), ids.lowest("plg", until)
    complete = False
    for _ in range(MAX_PAGES):
        async with database.reading() as session:
            rows = (await session.execute(_PAGE, {"after": after, "before": before})).all()
        counted.update((row.platform, row.campaign) for row in rows if row.drive_id == drive_id)
        if len(rows) < PAGE:
            complete = True
            break
        after = rows[-1].id
    data = [
        {"platform": platform, "campaign": campaign, "pledged": pledged}
        for (platform, campaign), pledged in counted.items()
    ]
    return {"complete": complete, "data": data}
