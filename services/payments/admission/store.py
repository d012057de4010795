"""The queue's state as stored. All functions work in their caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, text, update

from backbone.database.transaction import Transaction
from services.payments.admission.estimates import Estimates, HigherRate
from services.payments.admission.tables import ADMISSION
from services.payments.tables import PAYMENTS, TICKETS


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when checkouts are paused, by which API key, and why."""

    since: datetime
    by: str
    note: str | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """The estimates, and the pause if there is one."""

    estimates: Estimates
    pause: Pause | None


async def read_queue(session: Transaction) -> QueueState:
    """The queue's state."""
    return _state((await session.execute(_READ)).one())


async def read_queue_and_newest(session: Transaction) -> tuple[QueueState, int]:
    """The queue's state, and the highest number given to a payment; 0 where there is none."""
    row = (await session.execute(_READ_WITH_NEWEST)).one()
    return _state(row), row.newest


async def advance(session: Transaction, front: int, rate: int) -> None:
    """Note that the tickets up to `front` were admitted at `rate`. `front` never falls."""
    before = _state((await session.execute(_LOCKED)).one()).estimates
    # Once the row is locked: a subquery of that statement would not see what was committed while it waited.
    newest: int = (await session.execute(select(_NEWEST))).scalar_one()
    after = before.advanced(front, rate, newest)
    if after != before:
        values = {"front": after.front, "rate": after.rate, "higher": [
            [each.up_to, each.rate] for each in after.higher
        ]}  # fmt: skip
        await session.execute(update(ADMISSION).values(values))


async def count_waiting(session: Transaction) -> int:
    """The number of tickets in the queue."""
    return int((await session.execute(_COUNT)).scalar_one())


async def pause(session: Transaction, by: str, note: str | None, at: datetime) -> QueueState:
    """Pause checkouts; where they are paused already, nothing changes."""
    state = _state((await session.execute(_LOCKED)).one())
    if state.pause is None:
        await session.execute(update(ADMISSION).values(paused_at=at, paused_by=by, paused_note=note))
    return await read_queue(session)


async def resume(session: Transaction) -> QueueState:
    """Resume checkouts; where they are not paused, nothing changes."""
    await session.execute(update(ADMISSION).values(paused_at=None, paused_by=None, paused_note=None))
    return await read_queue(session)


_READ: Final = select(ADMISSION)
_LOCKED: Final = select(ADMISSION).with_for_update()
_NEWEST: Final = select(func.coalesce(func.max(PAYMENTS.c.number), 0)).scalar_subquery().label("newest")
_READ_WITH_NEWEST: Final = select(ADMISSION, _NEWEST)
_COUNT: Final = select(func.count()).select_from(PAYMENTS).where(text(TICKETS))


def _state(row: Any) -> QueueState:
    higher = tuple(HigherRate(up_to, rate) for up_to, rate in row.higher)
    paused = None if row.paused_at is None else Pause(row.paused_at, row.paused_by or "", row.paused_note)
    return QueueState(Estimates(row.front, row.rate, higher), paused)
