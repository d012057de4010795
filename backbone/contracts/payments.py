"""What payments says: the money of a gift, as absolute state with a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final

from backbone.contracts.event import Event, MoneyField, Timestamp
from backbone.contracts.open_values import OpenValues, known
from backbone.contracts.pledges import PledgeStatus, Source
from backbone.ids import CreatorId, DonorId, DriveId, PaymentId, PledgeId


class PaymentStatus(StrEnum):
    """What a payment's facts say."""

    AWAITED = "awaited"
    CAPTURED = "captured"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    LAPSED = "lapsed"


_SAYS: Final[Mapping[PaymentStatus, PledgeStatus]] = {
    PaymentStatus.DISPUTED: PledgeStatus.DISPUTED,
    PaymentStatus.CAPTURED: PledgeStatus.PAID,
    PaymentStatus.PARTLY_REFUNDED: PledgeStatus.PARTLY_REFUNDED,
    PaymentStatus.REFUNDED: PledgeStatus.REFUNDED,
    PaymentStatus.AWAITED: PledgeStatus.OPEN,
    PaymentStatus.LAPSED: PledgeStatus.LAPSED,
}
_RANK: Final[Mapping[PaymentStatus, int]] = {status: -place for place, status in enumerate(_SAYS)}


def pledge_status(payments: Iterable[PaymentStatus]) -> PledgeStatus:
    """What a pledge is, of all its payments, in whatever order they were heard.

    Mostly there is one. A second capture on a pledge is a payment of its own: when that one is
    given back, the pledge is still paid, so the payment that stands best speaks for the pledge;
    only a dispute on any of them is louder.
    """
    return _SAYS[max(payments, key=_RANK.__getitem__, default=PaymentStatus.AWAITED)]


def nearest_status(status: str, captured: int, refunded: int, disputed: int) -> PaymentStatus:
    """`status` as this version knows it; of a newer version's, what the amounts (minor units) say.

    The amounts are absolute, so a pledge is shown as paid or given back whatever the status is called.
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
    """All that is now true of a payment; a higher version replaces a lower one.

    Amounts are cumulative and at least zero: `captured` gross, `refunded` from pending on until
    failed, `disputed` open or lost. `held` money counts in `by_state.held` and nowhere else.
    """

    payment_id: PaymentId
    drive_id: DriveId
    pledge_id: PledgeId | None
    creator_id: CreatorId | None
    donor_id: DonorId | None  # None counts as a donor of its own
    source: Source | None
    version: int
    status: Annotated[PaymentStatus | str, OpenValues(PaymentStatus)]
    held: bool
    captured: MoneyField
    refunded: MoneyField
    disputed: MoneyField
    captured_at: Timestamp | None
    changed_at: Timestamp
