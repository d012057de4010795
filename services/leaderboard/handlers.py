"""Event handlers: each applies a batch of events and adds the rows it logs to the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.contracts import (
    CreatorChanged,
    DriveChanged,
    DriveLogged,
    PaymentChanged,
    PledgeChanged,
    PledgeMade,
)
from backbone.contracts.pledges import PledgeState
from backbone.database.session_info import after_commit
from backbone.messaging.consumer import Handlers
from backbone.messaging.outbox import announce
from backbone.telemetry import FRESHNESS
from services.leaderboard import commands, tally

Fact = TypeVar("Fact")

_COUNTED: Final = FRESHNESS.labels("counted")


async def name_drives(events: Sequence[DriveChanged], session: AsyncSession) -> None:
    """Store names, goals and milestones of drives, and log their changes of state."""
    await _apply(commands.name_drives, events, session)


async def name_creators(events: Sequence[CreatorChanged], session: AsyncSession) -> None:
    """Store names of creators."""
    await _apply(commands.name_creators, events, session)


async def keep_pledges(events: Sequence[PledgeState], session: AsyncSession) -> None:
    """Store pledges and keep each drive's `pledged`."""
    await _apply(commands.keep_pledges, events, session)


async def tally_payments(events: Sequence[PaymentChanged], session: AsyncSession) -> None:
    """Add each payment's change since its stored version to its drive, with one statement per table."""
    await _apply(tally.tally_payments, events, session)
    after_commit(session, lambda: _note_ages(events))


def _note_ages(events: Sequence[PaymentChanged]) -> None:
    now = datetime.now(UTC)
    for event in events:
        _COUNTED.observe(max(0.0, (now - event.changed_at).total_seconds()))


async def _apply(
    change: Callable[[Connection, Sequence[Fact]], Sequence[DriveLogged]],
    events: Sequence[Fact],
    session: AsyncSession,
) -> None:
    """Run a command in the session's transaction and add the rows it logged to the outbox there."""
    logged = await session.run_sync(lambda inner: change(inner.connection(), events))
    await announce(session, logged)


HANDLERS: Final[Handlers] = {
    DriveChanged: name_drives,
    CreatorChanged: name_creators,
    PledgeMade: keep_pledges,
    PledgeChanged: keep_pledges,
    PaymentChanged: tally_payments,
}
