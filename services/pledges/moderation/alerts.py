"""Controls of a drive's alerts: one transaction each, in which leaderboard is told through the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import structlog
from sqlalchemy import Row, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from backbone.clock import Clock
from backbone.contracts.pledges import AlertControl, AlertsControlled, PledgeStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Forbidden, NotFound
from backbone.ids import DriveId, PledgeId
from backbone.messaging.outbox import announce
from services.pledges.domain import DomainError
from services.pledges.tables import ALERTS, DRIVES, PLEDGES

log = structlog.get_logger()

_PAID: Final = frozenset({PledgeStatus.PAID, PledgeStatus.PARTLY_REFUNDED})


class AlertAction(StrEnum):
    """What a moderator may do with the alerts on the screens of a drive."""

    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    REPLAY = "replay"


class DonationNotCounted(DomainError):
    """The pledge has no donation to show: it is unpaid, or its money was returned."""


def controlled(
    state: AlertsControlled, action: AlertAction, at: datetime, pledge_id: PledgeId | None = None
) -> AlertsControlled:
    """The state after `action`, one version later; `state` itself where it is paused, or not, already."""
    version = state.version + 1
    if action in (AlertAction.PAUSE, AlertAction.RESUME):
        paused = action is AlertAction.PAUSE
        return state if paused == state.paused else state.model_copy(update=_new(version, paused=paused))
    made = AlertControl(version=version, at=at, pledge_id=pledge_id)
    return state.model_copy(update=_new(version, **{action.value: made}))


def _new(version: int, **changes: object) -> dict[str, object]:
    return {"version": version, **changes}


class AlertControls:
    """Changes how the overlays of a drive show alerts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def control(
        self, ref: str, action: AlertAction, caller: Caller, pledge_id: PledgeId | None = None
    ) -> AlertsControlled:
        """Apply `action`; the state after it. Pausing what is paused changes nothing, as resuming does.

        Raises NotFound for an unknown drive or another drive's pledge, Forbidden, NotYourDrive, and
        DonationNotCounted.
        """
        async with self._database.transaction() as session:
            drive_id = await _drive_of(session, ref, caller)
            if pledge_id is not None:
                await _check_donation(session, drive_id, pledge_id)
            before = await _locked_state(session, drive_id)
            after = controlled(before, action, self._clock.now(), pledge_id)
            if after is not before:
                await session.execute(_UPDATE, _columns(after))
                await announce(session, [after])
        crash_point("pledges.alerts.after_commit")
        if after is not before:
            who = {"key_id": caller.key_id, "partner": caller.partner}
            log.info("alerts.controlled", drive=drive_id, action=action.value, version=after.version, **who)
        return after


_DRIVE: Final = select(DRIVES.c.id, DRIVES.c.partner, DRIVES.c.test).where(
    or_(DRIVES.c.slug == bindparam("ref"), DRIVES.c.id == bindparam("ref"))
)
"""Not locked: pledges to a drive are stored meanwhile."""
_PLEDGE: Final = select(PLEDGES.c.status).where(
    PLEDGES.c.id == bindparam("pledge"), PLEDGES.c.drive_id == bindparam("of_drive")
)
_MAKE: Final[Mapping[str, Any]] = {
    "sqlite": sqlite.insert(ALERTS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(ALERTS).on_conflict_do_nothing(),
}
_LOCK: Final = select(ALERTS).where(ALERTS.c.drive_id == bindparam("of_drive")).with_for_update()
_UPDATE: Final = (
    update(ALERTS)
    .where(ALERTS.c.drive_id == bindparam("of_drive"))
    .values(
        version=bindparam("new_version"),
        paused=bindparam("new_paused"),
        skip=bindparam("new_skip", type_=ALERTS.c.skip.type),
        replay=bindparam("new_replay", type_=ALERTS.c.replay.type),
    )
)


async def _drive_of(session: Transaction, ref: str, caller: Caller) -> DriveId:
    """The id of a drive whose alerts `caller` may control. Raises NotFound, Forbidden, NotYourDrive."""
    row = (await session.execute(_DRIVE, {"ref": ref})).first()
    if row is None:
        raise NotFound("No such drive.")
    if caller.mode == "test" and not row.test:
        raise Forbidden("A test key works on test drives only.")
    caller.require_owned(row.partner)
    return DriveId(row.id)


async def _check_donation(session: Transaction, drive_id: DriveId, pledge_id: PledgeId) -> None:
    row = (await session.execute(_PLEDGE, {"pledge": pledge_id, "of_drive": drive_id})).first()
    if row is None:
        raise NotFound("No such pledge to this drive.")
    if row.status not in _PAID:
        raise DonationNotCounted(f"The pledge is {row.status}.")


async def _locked_state(session: Transaction, drive_id: DriveId) -> AlertsControlled:
    first = {"drive_id": drive_id, "version": 0, "paused": False, "skip": None, "replay": None}
    await session.execute(_MAKE[session.dialect.name], first)
    return _state((await session.execute(_LOCK, {"of_drive": drive_id})).one())


def _state(row: Row[Any]) -> AlertsControlled:
    return AlertsControlled(
        drive_id=row.drive_id, version=row.version, paused=row.paused, skip=row.skip, replay=row.replay
    )


def _columns(state: AlertsControlled) -> dict[str, Any]:
    skip, replay = (one and one.model_dump(mode="json") for one in (state.skip, state.replay))
    return {
        "of_drive": state.drive_id,
        "new_version": state.version,
        "new_paused": state.paused,
        "new_skip": skip,
        "new_replay": replay,
    }
