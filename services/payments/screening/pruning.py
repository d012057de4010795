"""Deleting what screening stores of clients and cards once it is a day old."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy import Column

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.periodic import PruneStep, delete_oldest
from services.payments.screening.tables import CLIENTS, REFUSED, TRIES

KEPT: Final = timedelta(days=1)


def screening_steps(database: Database, clock: Clock) -> Mapping[str, PruneStep]:
    """The steps that delete tries, clients and refusals, by table."""

    async def older(age: Column[object], kept: timedelta) -> int:
        return await delete_oldest(database, age, clock.now() - kept)

    return {
        "card_tries": partial(older, TRIES.c.at, KEPT),
        "payment_clients": partial(older, CLIENTS.c.made_at, KEPT),
        "refused_clients": partial(older, REFUSED.c.until, timedelta()),
    }
