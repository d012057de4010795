"""Rows of drives' logs as they are stored, and as the events that announce them."""

from __future__ import annotations

from typing import Final, NamedTuple

from backbone.clock import rfc3339_of_microseconds
from backbone.contracts import DriveLogged
from backbone.contracts.event import codec_of
from backbone.contracts.leaderboard import LogType
from backbone.ids import CreatorId, PaymentId, PledgeId


class LoggedRow(NamedTuple):
    """A row of the log as it is stored; `at` is in microseconds since 1970, whole milliseconds."""

    drive_id: str
    epoch: int
    sequence: int
    type: LogType
    at: int
    payment_id: PaymentId | None
    pledge_id: PledgeId | None
    creator_id: CreatorId | None
    amount: int | None
    raised_after: int
    currency: str
    hash: str
    given_amount: int | None = None
    given_currency: str | None = None


def encode_logged(row: LoggedRow) -> bytes:
    """The row as a `DriveLogged` in JSON.

    Without making the event, because every value comes from a validated event or from this database.
    """
    (
        drive_id, epoch, sequence, type_, at, payment_id, pledge_id, creator_id,
        amount, raised_after, currency, hash_, given, given_currency,
    ) = row  # fmt: skip
    return _ENCODE(
        (
            drive_id, epoch, sequence, type_, rfc3339_of_microseconds(at), payment_id, pledge_id, creator_id,
            None if amount is None else {"minor_units": amount, "currency": currency},
            {"minor_units": raised_after, "currency": currency},
            hash_,
            None if given is None else {"minor_units": given, "currency": given_currency},
        )
    )  # fmt: skip


_ENCODE: Final = codec_of(DriveLogged).encode_values
