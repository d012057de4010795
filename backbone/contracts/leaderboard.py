"""Events of leaderboard: the rows of each drive's log, in order, and snapshots of the drive."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from backbone.clock import rfc3339
from backbone.contracts.event import Event, MoneyField, Timestamp
from backbone.contracts.open_values import OpenValues
from backbone.ids import CreatorId, DriveId, PaymentId, PledgeId
from backbone.money import as_json

LogType = Literal[
    "donation.counted",
    "donation.corrected",
    "donation.refunded",
    "donation.refund_failed",
    "donation.disputed",
    "donation.dispute_won",
    "matching.applied",
    "matching.returned",
    "milestone.reached",
    "drive.opened",
    "drive.paused",
    "drive.resumed",
    "drive.closed",
]
"""The rows that this version writes. A consumer ignores rows of other types and keeps their sequence."""


class DriveLogged(Event, name="leaderboard.drive_logged.v1", topic="drive-log", key="drive_id"):
    """One row of a drive's gap-free log.

    `sequence` counts from 1 within a drive and `epoch`. `amount` is the size of the change (never negative,
    None where no money moved), `raised_after` the raised amount of the drive after it. `hash` is the SHA-256
    of this row and of the previous row's hash. `donation.counted` is written when
    a payment starts to count in the drive, `donation.corrected` when more was captured than was known;
    `matching.applied` when a sponsor's pool gave to gifts, `matching.returned` when it got some back.
    """

    drive_id: DriveId
    epoch: int
    sequence: int
    type: Annotated[str, OpenValues(get_args(LogType))]
    at: Timestamp
    payment_id: PaymentId | None
    pledge_id: PledgeId | None
    creator_id: CreatorId | None
    amount: MoneyField | None
    raised_after: MoneyField
    hash: str
    given: MoneyField | None = None
    """The size of the change as it was given, where that was in another currency than the drive's."""

    def as_row(self) -> dict[str, Any]:
        """The row as in `GET /v1/drives/{drive}/events` and in live frames."""
        amount = self.amount
        shown = self.given or amount
        row = {
            "sequence": self.sequence,
            "type": self.type,
            "at": rfc3339(self.at),
            "payment": self.payment_id,
            "pledge": self.pledge_id,
            "creator": self.creator_id,
            "amount": None if shown is None else as_json(shown.minor_units, shown.currency),
            "raised_after": as_json(self.raised_after.minor_units, self.raised_after.currency),
            "hash": self.hash,
        }
        if self.given is not None and amount is not None:
            row["reporting_amount"] = as_json(amount.minor_units, amount.currency)
        return row


class SnapshotTaken(Event, name="leaderboard.snapshot_taken.v1", topic="snapshots", key="drive_id"):
    """The figures of a drive; the newer snapshot has the greater (epoch, sequence, revision).

    `totals` is the object of `GET /v1/drives/{drive}/totals` without `epoch`, `sequence`, `as_of`, `state`
    and `lag_ms`, which the gateway adds.
    """

    drive_id: DriveId
    slug: str
    epoch: int
    sequence: int
    revision: int
    as_of: Timestamp
    totals: dict[str, Any]


class Heartbeat(Event, name="leaderboard.heartbeat.v1", topic="snapshots", key="slot"):
    """Everything committed before `as_of` is in the snapshots of this partition's drives.

    `slot` is a key of the same partition, so a consumer that has read a heartbeat has read the snapshots it
    covers, and the compacted topic keeps one heartbeat per partition.
    """

    slot: str
    partition: int
    as_of: Timestamp
