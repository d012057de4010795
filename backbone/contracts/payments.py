"""Events of payments: the state of a payment, absolute and with a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final

from backbone.contracts.event import Event, MoneyField, Timestamp
from backbone.contracts.open_values import OpenValues, known
from backbone.contracts.pledges import PledgeStatus, Source
from backbone.ids import CreatorId, DonorId, DriveId, MatchingPoolId, PaymentId, PledgeId


class PaymentStatus(StrEnum):
    """The status that a payment's facts imply."""

    AWAITED = "awaited"
    CAPTURED = "captured"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    LAPSED = "lapsed"


_PLEDGE_STATUS: Final[Mapping[PaymentStatus, PledgeStatus]] = {
    PaymentStatus.DISPUTED: PledgeStatus.DISPUTED,
    PaymentStatus.CAPTURED: PledgeStatus.PAID,
    PaymentStatus.PARTLY_REFUNDED: PledgeStatus.PARTLY_REFUNDED,
    PaymentStatus.REFUNDED: PledgeStatus.REFUNDED,
    PaymentStatus.AWAITED: PledgeStatus.OPEN,
    PaymentStatus.LAPSED: PledgeStatus.LAPSED,
}
_RANK: Final[Mapping[PaymentStatus, int]] = {status: -place for place, status in enumerate(_PLEDGE_STATUS)}


def pledge_status(payments: Iterable[PaymentStatus]) -> PledgeStatus:
    """The status of a pledge, derived from all its payments in any order.

    A pledge usually has one payment. A second capture is a payment of its own; after its refund, the pledge
    is still paid. The best status of any payment is therefore that of the pledge, except that a dispute on
    any payment makes the pledge disputed.
    """
    return _PLEDGE_STATUS[max(payments, key=_RANK.__getitem__, default=PaymentStatus.AWAITED)]


def nearest_status(status: str, captured: int, refunded: int, disputed: int) -> PaymentStatus:
    """The known `status`; for a status of a newer version, the one that the amounts (minor units) imply.

    The amounts are absolute, so a pledge is shown as paid or refunded whatever its status is called.
    """
    if (one := known(PaymentStatus, status)) is not None:
        return one
    if disputed > 0:
        return PaymentStatus.DISPUTED
    if captured <= 0:
        return PaymentStatus.AWAITED
    if refunded >= captured:
        return PaymentStatus.REFUNDED
    return PaymentStatus.PARTLY_REFUNDED if refunded else PaymentStatus.CAPTURED


class PaymentChanged(Event, name="payments.payment_changed.v1", topic="payments", key="drive_id"):
    """The whole state of a payment; a higher version replaces a lower one.

    Amounts are cumulative and at least zero: `captured` gross, `refunded` from pending on until
    failed, `disputed` open or lost. `held` money counts in `by_state.held` and nowhere else.
    """

    payment_id: PaymentId
    drive_id: DriveId
    pledge_id: PledgeId | None
    creator_id: CreatorId | None
    donor_id: DonorId | None  # None counts as a separate donor
    source: Source | None
    version: int
    status: Annotated[PaymentStatus | str, OpenValues(PaymentStatus)]
    held: bool
    captured: MoneyField
    refunded: MoneyField
    disputed: MoneyField
    captured_at: Timestamp | None
    changed_at: Timestamp
    anonymous: bool | None = None
    """Whether the donor is not named, as the pledge says; None where it is unknown: then nobody is named."""
    in_other_drive: bool = False
    """Whether a person counted held money in another drive than its pledge's. The pledge's texts were meant
    for, and moderated in, its own drive: they are not shown in this one, and the donor is not named."""
    offline: bool = False
    """Whether the money came past the processor, such as a bank transfer. What is left of it counts in
    `by_state.offline`; it is no processor money."""
    reporting_captured: MoneyField | None = None
    reporting_refunded: MoneyField | None = None
    reporting_disputed: MoneyField | None = None
    """The amounts in the drive's currency, where they are in another one: what counts in its sums. Their net
    is the rounded net of the payment (`backbone.exchange_rates.reported`)."""
    rate: str | None = None
    """The rate that was frozen for these; None where the amounts are in the drive's currency."""


class ExchangeRateSet(Event, name="payments.exchange_rate_set.v1", topic="payments", key="source_currency"):
    """One unit of `source_currency` is worth `rate` units of `target_currency`; a higher version replaces a
    lower one of the same pair."""

    source_currency: str
    target_currency: str
    version: int
    rate: str
    as_of: Timestamp
    changed_at: Timestamp


class MatchingPoolChanged(Event, name="payments.matching_pool_changed.v1", topic="payments", key="drive_id"):
    """The whole state of a matching pool; a higher version replaces a lower one.

    `used` is what gifts have got of `cap` so far, in the drive's currency; a refund gives its share back.
    `ratio` is a decimal string: "1.00" doubles each gift. `sponsor` is the public name of an organisation.
    Gifts captured from `starts_at` until before `ends_at` and `ended_at` are matched, those credited to
    `creator_id` only where it is set. `ended_at` is set once the drive's owner has ended the pool.
    """

    pool_id: MatchingPoolId
    drive_id: DriveId
    version: int
    sponsor: str
    cap: MoneyField
    used: MoneyField
    ratio: str
    creator_id: CreatorId | None
    starts_at: Timestamp
    ends_at: Timestamp | None
    ended_at: Timestamp | None
    changed_at: Timestamp
