"""The totals of a drive at one (epoch, sequence, revision), read from the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, func, literal_column, select

from backbone.database.columns import microseconds
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from backbone.money import as_json
from services.leaderboard import boards, on_screen
from services.leaderboard.domain import percent
from services.leaderboard.donations import recent_json
from services.leaderboard.matching.pools import HAS_POOLS, shown_pools
from services.leaderboard.on_screen import OnScreen
from services.leaderboard.sequencer import COUNTED_S
from services.leaderboard.tables import clearings, display_texts, drive_log, drives, payments, second_counts

LEADERS: Final = 10
RECENT: Final = 20
MINUTE_S: Final = COUNTED_S

SnapshotVersion = tuple[int, int, int]
"""(epoch, sequence, revision); a newer state is greater."""


@dataclass(frozen=True, slots=True)
class DriveFigures:
    """The figures of a drive at one moment, and the display texts that are missing."""

    row: Row[Any]
    leaders: Sequence[Mapping[str, Any]]
    recent: Sequence[Row[Any]]
    donations_per_minute: int
    raised_per_minute: int
    on_screen: OnScreen
    matching: Sequence[Mapping[str, Any]]

    @property
    def drive_id(self) -> str:
        """The id of the drive."""
        return str(self.row.drive_id)

    @property
    def snapshot_version(self) -> SnapshotVersion:
        """The version of these figures."""
        return snapshot_version(self.row)

    @property
    def without_texts(self) -> list[str]:
        """Pledges in `recent` whose display texts are not stored yet."""
        return [row.pledge_id for row in self.recent if row.pledge_id and row.text_version < 0]

    @property
    def with_outdated_texts(self) -> list[str]:
        """Pledges in `recent` or on screen whose texts do not follow a moderator's newest decision."""
        outdated = [row.pledge_id for row in self.recent if 0 <= row.text_version < (row.decided or 0)]
        return [*outdated, *self.on_screen.outdated]

    def totals(self, hidden: Collection[str] = ()) -> dict[str, Any]:
        """The public totals of a snapshot; `recent` omits donations of the pledges in `hidden`."""
        row, currency = self.row, self.row.currency
        raised = row.captured + row.offline + row.matched - row.refunded - row.disputed
        by_state = {name: as_json(getattr(row, name), currency) for name in _STATES}
        return {
            "drive": row.drive_id,
            "slug": row.slug,
            "title": row.title,
            "currency": currency,
            "raised": as_json(raised, currency),
            "goal": as_json(row.goal, currency),
            "percent": percent(raised, row.goal),
            "donations": row.donations,
            "donors": row.donors,
            "by_state": by_state,
            "per_minute": {
                "donations": self.donations_per_minute,
                "raised": as_json(self.raised_per_minute, currency),
            },
            "leaders": self.leaders,
            "recent": [recent_json(gift, currency) for gift in self.recent if gift.pledge_id not in hidden],
            "milestones": [
                {
                    "title": one["title"],
                    "amount": as_json(one["amount"], currency),
                    "reached_at": one["reached_at"],
                }
                for one in row.milestones
                if not one.get("removed")
            ],
            "alerts": self.on_screen.alerts,
            "pinned": self.on_screen.pinned,
            "matching": self.matching,
        }


_STATES: Final = ("pledged", "captured", "refunded", "disputed", "offline", "matched", "held")


def snapshot_version(row: Row[Any]) -> SnapshotVersion:
    """The (epoch, sequence, revision) of a drive's row."""
    return row.epoch, row.sequence, row.revision


_DRIVES: Final = (
    select(drives, func.coalesce(clearings.c.held, 0).label("held"), on_screen.HAS_PINS, HAS_POOLS)
    .join_from(
        drives,
        clearings,
        and_(clearings.c.drive_id == drives.c.drive_id, clearings.c.currency == drives.c.currency),
        isouter=True,
    )
    .where(one_of(drives.c.drive_id, "wanted"), drives.c.version > literal_column("0"))
)

_newest_counted = (
    select(drive_log)
    .where(
        drive_log.c.drive_id == bindparam("of_drive"),
        drive_log.c.epoch == bindparam("of_epoch"),
        drive_log.c.type == "donation.counted",
    )
    .order_by(drive_log.c.sequence.desc())
    .limit(2 * RECENT)
    .subquery("newest")
)

_RECENT: Final = (
    select(
        _newest_counted,
        payments.c.captured,
        payments.c.given_captured,
        payments.c.currency,
        func.coalesce(display_texts.c.version, literal_column("-1")).label("text_version"),
        display_texts.c.decided,
        display_texts.c.name,
        display_texts.c.message,
    )
    .join_from(_newest_counted, payments, payments.c.payment_id == _newest_counted.c.payment_id)
    .join(display_texts, display_texts.c.pledge_id == _newest_counted.c.pledge_id, isouter=True)
    # A payment that was refunded in full, or moved to another drive, is not announced.
    .where(
        payments.c.captured - payments.c.refunded - payments.c.disputed > 0,
        payments.c.counted,
        payments.c.drive_id == _newest_counted.c.drive_id,
    )
    .order_by(_newest_counted.c.sequence.desc())
)

_LAST_MINUTE: Final = select(
    func.coalesce(func.sum(second_counts.c.donations), literal_column("0")),
    func.coalesce(func.sum(second_counts.c.raised), literal_column("0")),
).where(second_counts.c.drive_id == bindparam("of_drive"), second_counts.c.second > bindparam("since"))


def read_figures(
    transaction: SyncTransaction,
    drive_ids: Collection[str],
    wanted: Callable[[Row[Any]], bool],
    now: datetime,
) -> list[DriveFigures]:
    """The figures of those of these drives that have a name and are `wanted`, read in `transaction`."""
    rows = transaction.execute(_DRIVES, {"wanted": list(drive_ids)}).all()
    return [_figures(transaction, row, now) for row in rows if wanted(row)]


def _figures(transaction: SyncTransaction, row: Row[Any], now: datetime) -> DriveFigures:
    leaders = boards.top_creators(transaction, row.drive_id, row.currency, LEADERS)
    counted = transaction.execute(_RECENT, {"of_drive": row.drive_id, "of_epoch": row.epoch})
    newest: dict[str, Row[Any]] = {}
    for gift in counted:  # a payment that was held for a while is logged twice: the newest row is shown
        newest.setdefault(gift.payment_id, gift)
    since = microseconds(now) // 1_000_000 - MINUTE_S
    last_minute = transaction.execute(_LAST_MINUTE, {"of_drive": row.drive_id, "since": since}).one()
    return DriveFigures(
        row,
        leaders,
        list(newest.values())[:RECENT],
        int(last_minute[0]),
        int(last_minute[1]),
        on_screen.read(transaction, row, now),
        shown_pools(transaction, row, now),
    )
