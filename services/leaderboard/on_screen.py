"""What moderators put on the screens of a drive: its pinned message, and the state of its alerts.

A pinned message is shown with its donation, so one that is not paid, or no longer counts, is not shown. Its
texts follow the newest decision: outdated ones are not shown, but fetched (`text_republishing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, bindparam, func, literal_column, select, text, update

from backbone.contracts import AlertsControlled, MessageModerated
from backbone.contracts.pledges import MessageState
from backbone.database.columns import Utc
from backbone.database.transaction import SyncTransaction
from services.leaderboard.donations import recent_json
from services.leaderboard.sums import NET
from services.leaderboard.tables import NOT_FETCHED, PINNED, display_texts, drives, payments, pledges

CONTROL_SHOWN: Final = timedelta(minutes=1)
"""How long totals have a skip or a replay; screens act within seconds, or not at all."""
MOST_PINS: Final = 20
"""The newest pinned messages of a drive among which one that can be shown is looked for."""

_NO_CONTROL: Final[Mapping[str, Any]] = {"paused": False, "skip": None, "replay": None}


class OnScreen(NamedTuple):
    """The members `alerts` and `pinned` of a drive's totals, and pledges whose texts they lack."""

    alerts: Mapping[str, Any]
    pinned: Mapping[str, Any] | None
    outdated: Sequence[str]


def pin(transaction: SyncTransaction, event: MessageModerated) -> None:
    """Note whether the message is pinned; its row exists, and keeps the state of a higher version."""
    is_pinned = event.state == MessageState.PINNED
    values = {
        "of_pledge": event.pledge_id,
        "in_drive": event.drive_id,
        "since": event.moderated_at if is_pinned else None,
        "at_version": event.version,
    }
    transaction.execute(_PIN, values)


_PIN: Final = (
    update(display_texts)
    .where(
        display_texts.c.pledge_id == bindparam("of_pledge"),
        display_texts.c.pin_version < bindparam("at_version"),
    )
    .values(
        drive_id=bindparam("in_drive"),
        pinned_at=bindparam("since", type_=Utc),
        pin_version=bindparam("at_version"),
    )
)


def control(transaction: SyncTransaction, event: AlertsControlled) -> bool:
    """Store the state of a drive's alerts; False where a state of the same or a higher version is stored.

    The drive's row exists and is locked.
    """
    state = event.model_dump(mode="json", include=set(_NO_CONTROL))
    values = {"of_drive": event.drive_id, "new_version": event.version, "new_alerts": state}
    return transaction.execute(_CONTROL, values).rowcount > 0


_CONTROL: Final = (
    update(drives)
    .where(drives.c.drive_id == bindparam("of_drive"), drives.c.alerts_version < bindparam("new_version"))
    .values(
        alerts=bindparam("new_alerts", type_=drives.c.alerts.type), alerts_version=bindparam("new_version")
    )
)


def read(transaction: SyncTransaction, row: Row[Any], now: datetime) -> OnScreen:
    """What the totals of the drive in `row` (with `HAS_PINS`) show at `now`.

    It takes no statement where nothing is pinned and no donation is shown again.
    """
    pins = transaction.execute(_PINS, {"of_drive": row.drive_id}).all() if row.has_pins else []
    pinned = next((one for one in pins if _is_current(one) and (one.name or one.message)), None)
    alerts = row.alerts or _NO_CONTROL
    skip, replay = _still_shown(alerts["skip"], now), _still_shown(alerts["replay"], now)
    again = _again(transaction, row.drive_id, replay)
    shown = {
        "version": row.alerts_version,
        "paused": alerts["paused"],
        "skip": skip and {"version": skip["version"], "at": skip["at"]},
        "replay": _replay(replay, again, row.currency),
    }
    outdated = [one.pledge_id for one in (*pins, again) if one is not None and not _is_current(one)]
    donation = None if pinned is None else recent_json(pinned, row.currency)
    return OnScreen(shown, donation, outdated)


def _replay(replay: Mapping[str, Any] | None, again: Row[Any] | None, currency: str) -> dict[str, Any] | None:
    """The member `replay`: None until the texts of its donation are there."""
    if replay is None or (replay["pledge_id"] and (again is None or not _is_current(again))):
        return None
    donation = None if again is None else recent_json(again, currency)
    return {"version": replay["version"], "at": replay["at"], "donation": donation}


def _still_shown(made: Mapping[str, Any] | None, now: datetime) -> Mapping[str, Any] | None:
    return made if made and now - datetime.fromisoformat(made["at"]) <= CONTROL_SHOWN else None


def _again(transaction: SyncTransaction, drive_id: str, replay: Mapping[str, Any] | None) -> Row[Any] | None:
    """The donation that a replay names."""
    if replay is None or replay["pledge_id"] is None:
        return None
    values = {"of_drive": drive_id, "of_pledge": replay["pledge_id"]}
    return transaction.execute(_AGAIN, values).first()


def _is_current(row: Row[Any]) -> bool:
    """Whether the texts in `row` follow the newest decision."""
    return bool(row.text_version >= row.decided)


HAS_PINS: Final = (
    select(literal_column("1"))
    .select_from(display_texts)
    .where(display_texts.c.drive_id == drives.c.drive_id, text(PINNED))
    .correlate(drives)
    .exists()
    .label("has_pins")
)
"""Whether anything is pinned in the drive; read with the drive's row."""


def _with_donation(texts: Any, *ordered: Any) -> Select[Any]:
    """The donation of a pledge with its `texts`, as far as it counts in the drive."""
    return (
        select(
            pledges.c.pledge_id,
            texts.c.name,
            texts.c.message,
            func.coalesce(texts.c.version, literal_column(str(NOT_FETCHED))).label("text_version"),
            func.coalesce(texts.c.decided, literal_column("0")).label("decided"),
            payments.c.payment_id,
            payments.c.creator_id,
            payments.c.captured,
            payments.c.given_captured,
            payments.c.currency,
            payments.c.captured_at.label("at"),
        )
        .where(payments.c.drive_id == bindparam("of_drive"), payments.c.counted, NET > 0)
        .where(payments.c.captured_at.is_not(None))
        .order_by(*ordered)
    )


_newest_pins = (
    select(display_texts)
    .where(display_texts.c.drive_id == bindparam("of_drive"), text(PINNED))
    .order_by(display_texts.c.pinned_at.desc(), display_texts.c.pledge_id.desc())
    .limit(MOST_PINS)
    .subquery("pins")
)
_PINS: Final = _with_donation(
    _newest_pins, _newest_pins.c.pinned_at.desc(), _newest_pins.c.pledge_id.desc()
).select_from(
    _newest_pins.join(pledges, pledges.c.pledge_id == _newest_pins.c.pledge_id).join(
        payments, payments.c.payment_id == pledges.c.payment_id
    )
)
_AGAIN: Final = (
    _with_donation(display_texts)
    .select_from(
        pledges.join(payments, payments.c.payment_id == pledges.c.payment_id).join(
            display_texts, display_texts.c.pledge_id == pledges.c.pledge_id, isouter=True
        )
    )
    .where(pledges.c.pledge_id == bindparam("of_pledge"))
)
