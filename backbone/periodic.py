"""Periodic work: repeated at an interval, and pruning in batches until no old row is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Column, Executable, any_, bindparam, column, delete, func, select, tuple_

from backbone.database.database import Database
from backbone.service import Worker
from backbone.wakeups import wait_for

PRUNE_EVERY_S: Final = 3600.0
BATCH: Final = 1_000
"""Rows a batch may delete: some milliseconds, in which SQLite holds up the event loop."""
REST_RATIO: Final = 2.0
"""The pause after a batch, as a multiple of what the batch took: two thirds of the time are for others."""
MIN_PAUSE_S: Final = 0.005
MAX_PAUSE_S: Final = 1.0

log = structlog.get_logger()

_PRUNED = Counter("ataa_pruned_rows_total", "Rows deleted because they are old.", ["table"])

PruneStep = Callable[[], Awaitable[int]]
"""Deletes one bounded batch in one short transaction; how many rows, 0 once nothing old is left."""


async def run_every(interval_s: float, work: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Do `work` now and again after each pause of `interval_s`, until `stop`."""
    while not stop.is_set():
        await work()
        await wait_for(stop, interval_s)


async def prune_until_empty(table: str, step: PruneStep, stop: asyncio.Event) -> int:
    """Repeat `step` until it finds nothing, with a pause after each; how many rows were deleted.

    `table` is what the metric calls it, such as `pledges.inbox`. Ends early at `stop`. Raises what `step`
    raises; what was deleted before stays deleted.
    """
    loop = asyncio.get_running_loop()
    pruned = _PRUNED.labels(table)
    total = 0
    while not stop.is_set():
        began = loop.time()
        deleted = await step()
        if not deleted:
            break
        pruned.inc(deleted)
        total += deleted
        await wait_for(stop, min(max(REST_RATIO * (loop.time() - began), MIN_PAUSE_S), MAX_PAUSE_S))
    return total


async def delete_oldest(
    database: Database, age: Column[Any], before: datetime, at_most: int = BATCH, **where: object
) -> int:
    """Delete up to `at_most` rows of the table of `age` from before `before`, the oldest first; how many.

    `where` names columns that must have a value. There must be an index that begins with these and ends with
    `age`. Replicas that delete at once take different rows. A power cut may undo it.
    """
    statement = delete_oldest_statement(database.is_sqlite, age, tuple(where))
    async with database.lossy_transaction() as session:
        gone = await session.execute(statement, {"before": before, "at_most": at_most, **where})
    return int(gone.rowcount)


@lru_cache(maxsize=64)
def delete_oldest_statement(is_sqlite: bool, age: Column[Any], where: tuple[str, ...] = ()) -> Executable:
    """The statement of `delete_oldest`.

    PostgreSQL is given the rows' `ctid`: by their keys it would scan the whole table for each batch.
    """
    table = age.table
    conditions = [age < bindparam("before"), *(table.c[name] == bindparam(name) for name in where)]
    key: list[Any] = list(table.primary_key.columns) if is_sqlite else [column("ctid")]
    old = select(*key).select_from(table).where(*conditions).order_by(age).limit(bindparam("at_most"))
    if is_sqlite:
        return delete(table).where(tuple_(*key).in_(old))
    places = func.array(old.with_for_update(skip_locked=True).scalar_subquery())
    return delete(table).where(column("ctid") == any_(places))


def pruning_worker(service: str, steps: Mapping[str, PruneStep], interval_s: float = PRUNE_EVERY_S) -> Worker:
    """The worker that prunes `steps` (by table) of `service` at its start and then every `interval_s`.

    A table that cannot be pruned is reported and does not stop the others.
    """

    async def run(stop: asyncio.Event) -> None:
        async def prune_all() -> None:
            for table, step in steps.items():
                name = f"{service}.{table}"
                try:
                    await prune_until_empty(name, step, stop)
                except Exception as error:
                    log.warning(
                        "prune.failed", table=name, error=type(error).__name__, reason=str(error)[:200]
                    )

        await run_every(interval_s, prune_all, stop)

    return Worker(f"{service}.pruning", run)
