"""Event handlers: each applies a batch of events and adds the rows it logs to the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from backbone.contracts import (
    AlertsControlled,
    CreatorChanged,
    DriveChanged,
    DriveLogged,
    MatchingPoolChanged,
    MessageModerated,
    PaymentChanged,
    PledgeChanged,
    PledgeMade,
)
from backbone.contracts.pledges import PledgeState
from backbone.database.transaction import SyncTransaction, Transaction, after_commit
from backbone.messaging.consumer import Handlers
from backbone.messaging.outbox import announce_encoded
from backbone.telemetry import FRESHNESS, observe_all
from services.leaderboard import commands, tally
from services.leaderboard.logged_rows import LoggedRow, encode_logged
from services.leaderboard.matching.pools import keep_pools

Fact = TypeVar("Fact")

_COUNTED: Final = FRESHNESS.labels("counted")


async def name_drives(events: Sequence[DriveChanged], session: Transaction) -> None:
    """Store names, goals and milestones of drives, and log their changes of state."""
    await _apply(commands.name_drives, events, session)


async def name_creators(events: Sequence[CreatorChanged], session: Transaction) -> None:
    """Store names of creators."""
    await _apply(commands.name_creators, events, session)


async def keep_pledges(events: Sequence[PledgeState], session: Transaction) -> None:
    """Store pledges and keep each drive's `pledged`."""
    await _apply(commands.keep_pledges, events, session)


async def moderate_messages(events: Sequence[MessageModerated], session: Transaction) -> None:
    """Have what is shown of pledges' names and messages follow the newest decisions of moderators."""
    await _apply(commands.moderate_messages, events, session)


async def control_alerts(events: Sequence[AlertsControlled], session: Transaction) -> None:
    """Store how moderators have overlays show alerts."""
    await _apply(commands.control_alerts, events, session)


async def tally_payments(events: Sequence[PaymentChanged], session: Transaction) -> None:
    """Add each payment's change since its stored version to its drive, with one statement per table."""
    await _apply(tally.tally_payments, events, session)
    after_commit(session, lambda: _note_ages(events))


async def match_drives(events: Sequence[MatchingPoolChanged], session: Transaction) -> None:
    """Store matching pools, and log and add what they have given since their last version."""
    await _apply(keep_pools, events, session)


def _note_ages(events: Sequence[PaymentChanged]) -> None:
    now = datetime.now(UTC)
    observe_all(_COUNTED, [max(0.0, (now - event.changed_at).total_seconds()) for event in events])


async def _apply(
    change: Callable[[SyncTransaction, Sequence[Fact]], Sequence[LoggedRow]],
    events: Sequence[Fact],
    session: Transaction,
) -> None:
    """Run a command in the session's transaction and add the rows it logged to the outbox there."""

    def apply(inner: SyncTransaction) -> None:
        logged = change(inner, events)
        announce_encoded(inner, DriveLogged, [(row.drive_id, encode_logged(row)) for row in logged])

    await session.run_sync(apply)


HANDLERS: Final[Handlers] = {
    DriveChanged: name_drives,
    CreatorChanged: name_creators,
    PledgeMade: keep_pledges,
    PledgeChanged: keep_pledges,
    PaymentChanged: tally_payments,
    MatchingPoolChanged: match_drives,
    MessageModerated: moderate_messages,
    AlertsControlled: control_alerts,
}
