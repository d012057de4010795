"""The gifts of a drive in a period by source: how many, and how much of them counts.

Offline gifts are left out: nobody visited a page or pledged for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, bindparam, or_, select

from backbone.database.columns import Utc
from backbone.database.database import Database
from services.leaderboard.domain import source_names
from services.leaderboard.sums import COUNTED_PAYMENTS, NET
from services.leaderboard.tables import payments

PAGE: Final = 2_000
MAX_PAGES: Final = 500
"""Payments of one read, and reads of one funnel: a million payments."""

_FROM: Final = bindparam("since", type_=Utc)
_PAGE: Final = (
    select(payments.c.payment_id, payments.c.captured_at, payments.c.source_key, NET.label("net"))
    .where(payments.c.drive_id == bindparam("of_drive"), COUNTED_PAYMENTS, NET > 0)
    .where(payments.c.offline.is_(False))
    .where(payments.c.captured_at >= _FROM, payments.c.captured_at < bindparam("until", type_=Utc))
    .where(
        or_(
            payments.c.captured_at > _FROM,
            and_(payments.c.captured_at == _FROM, payments.c.payment_id > bindparam("after")),
        )
    )
    .order_by(payments.c.captured_at, payments.c.payment_id)
    .limit(PAGE)
)


async def paid_by_source(
    database: Database, drive_id: str, since: datetime, until: datetime
) -> Mapping[str, Any]:
    """The online gifts captured from `since` until before `until`, as `donations` counts, in minor units.

    `complete` is false where there are more than are counted. Read in short pages: SQLite reads on the event
    loop.
    """
    sums: defaultdict[str | None, list[int]] = defaultdict(lambda: [0, 0])
    values: dict[str, Any] = {"of_drive": drive_id, "since": since, "until": until, "after": ""}
    complete = False
    for _ in range(MAX_PAGES):
        async with database.reading() as session:
            rows = (await session.execute(_PAGE, values)).all()
        for row in rows:
            counted = sums[row.source_key]
            counted[0] += 1
            counted[1] += row.net
        if len(rows) < PAGE:
            complete = True
            break
        values |= {"since": rows[-1].captured_at, "after": rows[-1].payment_id}
    return {"complete": complete, "data": [_row(*one) for one in sums.items()]}


def _row(source_key: str | None, counted: list[int]) -> Mapping[str, Any]:
    platform, campaign = (None, None) if source_key is None else source_names(source_key)
    return {"platform": platform, "campaign": campaign, "paid": counted[0], "raised": counted[1]}
