"""Payments as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.contracts.payments import PaymentStatus
from backbone.exchange_rates import converted
from backbone.http.fields import (
    CreatorIdView,
    DriveIdView,
    MoneyView,
    PledgeIdView,
    TimestampView,
    id_schema,
    with_examples,
)
from backbone.money import DIGITS, Money, as_json
from services.payments.domain import (
    NO_DRIVE,
    DisputeRank,
    FactKind,
    HeldReason,
    Observation,
    RefundRank,
    held_reason,
)
from services.payments.funds import Fund
from services.payments.large_refunds.views import LargeRefundView
from services.payments.settlement.queries import FeeAndPayout


class HeldView(BaseModel):
    """Why the money is not counted, and since when."""

    reason: HeldReason
    since: TimestampView


class FactView(BaseModel):
    """What Stripe reported, by its id. `amount` is null in a currency that this version does not know."""

    kind: FactKind
    id: str
    amount: MoneyView | None
    status: Literal["pending", "succeeded", "failed", "inquiry", "open", "lost", "won", "ended", "unknown"]
    at: TimestampView


class PostingView(BaseModel):
    """A row of the ledger: `amount` is added to account `debit` and taken from account `credit`.

    `rate` is the payment's frozen rate, where the amount is not in the drive's currency.
    """

    number: int
    at: TimestampView
    debit: str
    credit: str
    amount: MoneyView
    cause: str
    payment: Annotated[str, id_schema("pay")] | None
    rate: str | None = None


class DeciderView(BaseModel):
    """The API key that decided, and its partner."""

    key: str
    partner: str


class PlaceView(BaseModel):
    """Where a payment counts."""

    drive: DriveIdView | None
    creator: CreatorIdView | None


class DecisionView(BaseModel):
    """What a person decided about a payment."""

    kind: Literal["release", "refund"]
    by: DeciderView
    at: TimestampView
    note: str | None
    reason: HeldReason | None
    before: PlaceView | None
    after: PlaceView | None
    refund: Annotated[str, id_schema("rfd")] | None


_USD: Final = {"currency": "USD", "value": "30.00"}
_NOTHING: Final = {"currency": "USD", "value": "0.00"}


class PaymentView(BaseModel):
    """A payment with everything that is known about its money.

    `reporting_amount` is `captured` in the drive's currency, at the `rate` that was frozen when the money was
    captured; both are null where there is no rate. `warned_at` is when a card issuer first warned that the
    cardholder may not have made it; it counts until a person refunds it. `fund` is `zakat` where the donor
    declared it so: it is posted to accounts of its own. `large_refunds` are those that a second key decides.
    """

    model_config = with_examples(
        {
            "id": "pay_01frtz5n00000000000000000d",
            "pledge": "plg_01frtz5n00000000000000000c",
            "drive": "drv_01frtz5n00000000000000000a",
            "creator": "crt_01frtz5n00000000000000000b",
            "status": "captured",
            "held": {"reason": "other_amount", "since": "2030-01-07T18:00:00.000Z"},
            "pledged": {"currency": "USD", "value": "25.00"},
            "captured": _USD,
            "refunded": _NOTHING,
            "disputed": _NOTHING,
            "reporting_amount": _USD,
            "rate": "1",
            "fee": None,
            "payout": None,
            "captured_at": "2030-01-07T18:00:00.000Z",
            "warned_at": None,
            "fund": "general",
            "facts": [
                {
                    "kind": "capture",
                    "id": "pi_3PqM2b",
                    "amount": _USD,
                    "status": "succeeded",
                    "at": "2030-01-07T18:00:00.000Z",
                }
            ],
            "postings": [
                {
                    "number": 1,
                    "at": "2030-01-07T18:00:00.000Z",
                    "debit": "processor_clearing",
                    "credit": "held",
                    "amount": _USD,
                    "cause": "pi_3PqM2b#1",
                    "payment": "pay_01frtz5n00000000000000000d",
                    "rate": None,
                }
            ],
            "decisions": [],
            "large_refunds": [],
        }
    )

    id: Annotated[str, id_schema("pay")]
    pledge: PledgeIdView | None
    drive: DriveIdView | None
    creator: CreatorIdView | None
    status: PaymentStatus
    held: HeldView | None
    pledged: MoneyView | None
    captured: MoneyView
    refunded: MoneyView
    disputed: MoneyView
    reporting_amount: MoneyView | None
    rate: str | None
    fee: MoneyView | None
    payout: str | None
    captured_at: TimestampView | None
    warned_at: TimestampView | None
    fund: Fund
    facts: list[FactView]
    postings: list[PostingView]
    decisions: list[DecisionView]
    large_refunds: list[LargeRefundView]


class PaymentPage(BaseModel):
    """A page of payments, the newest pledges first."""

    data: list[PaymentView]
    next: str | None


NOT_SETTLED: Final = FeeAndPayout(None, None)


def payment_json(
    row: Row[Any],
    facts: Sequence[Observation],
    postings: Sequence[Row[Any]],
    decisions: Sequence[Row[Any]],
    settled: FeeAndPayout,
    large_refunds: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """A payment in the shape of `PaymentView`; `row` also has `drive_currency`, None for an unknown drive."""
    currency = row.paid_currency or row.currency or "USD"
    captured = as_json(row.captured, currency)
    reporting, rate = _reporting(row)
    return {
        "id": row.id,
        "pledge": row.pledge_id,
        "drive": _drive(row.drive_id),
        "creator": row.creator_id,
        "status": row.status,
        "held": _held(row) if row.held else None,
        "pledged": None if row.currency is None else as_json(row.amount, row.currency),
        "captured": captured,
        "refunded": as_json(row.refunded, currency),
        "disputed": as_json(row.disputed, currency),
        "reporting_amount": reporting,
        "rate": rate,
        "fee": None if settled.fee is None else as_json(settled.fee.minor_units, settled.fee.currency),
        "payout": settled.payout,
        "captured_at": None if row.captured_at is None else rfc3339(row.captured_at),
        "warned_at": None if row.warned_at is None else rfc3339(row.warned_at),
        "fund": Fund.ZAKAT if row.zakat else Fund.GENERAL,
        "facts": [_fact_json(each) for each in sorted(facts, key=lambda each: (each.at, each.id))],
        "postings": [posting_json(each) for each in postings],
        "decisions": [_decision_json(each) for each in decisions],
        "large_refunds": list(large_refunds),
    }


def _reporting(row: Row[Any]) -> tuple[dict[str, str] | None, str | None]:
    """What was captured in the drive's currency, and the rate; None where it is not known."""
    if row.paid_currency is None or row.drive_currency is None:
        return None, None
    if row.paid_currency == row.drive_currency:
        return as_json(row.captured, row.drive_currency), "1"
    if row.rate is None or row.reporting_currency != row.drive_currency:
        return None, None
    units = converted(row.captured, row.paid_currency, row.drive_currency, row.rate)
    return as_json(units, row.drive_currency), row.rate


def posting_json(row: Row[Any]) -> dict[str, Any]:
    """A row of `postings` in the shape of `PostingView`."""
    return {
        "number": row.number,
        "at": rfc3339(row.posted_at),
        "debit": row.debit,
        "credit": row.credit,
        "amount": as_json(row.units, row.currency),
        "cause": row.cause,
        "payment": row.payment_id,
        "rate": row.rate,
    }


def _held(row: Row[Any]) -> dict[str, str]:
    """A process of an earlier version holds money without storing why; then the rule tells."""
    reason = row.held_reason
    if reason is None:
        pledged = None if row.currency is None else Money(row.amount, row.currency)
        reason = held_reason(Money(row.captured, row.paid_currency), pledged, row.drive_currency)
    return {
        "reason": reason or HeldReason.OTHER_CURRENCY,
        "since": rfc3339(row.held_since or row.captured_at),
    }


def _drive(drive_id: str | None) -> str | None:
    return None if drive_id == NO_DRIVE else drive_id


def _fact_json(fact: Observation) -> dict[str, Any]:
    return {
        "kind": fact.kind,
        "id": fact.id,
        "amount": as_json(fact.units, fact.currency) if fact.currency in DIGITS else None,
        "status": _fact_status(fact),
        "at": rfc3339(fact.at),
    }


_REFUND_STATUS: Final[Mapping[int, str]] = {rank: rank.name.lower() for rank in RefundRank}
_DISPUTE_STATUS: Final[Mapping[int, str]] = {rank: rank.name.lower() for rank in DisputeRank}


def _fact_status(fact: Observation) -> str:
    match fact.kind:
        case FactKind.REFUND:
            return _REFUND_STATUS[fact.rank]
        case FactKind.DISPUTE:
            return _DISPUTE_STATUS[fact.rank]
        case FactKind.CAPTURE:
            return "succeeded"
        case FactKind.ENDED:
            return "ended"


def _decision_json(row: Row[Any]) -> dict[str, Any]:
    released = row.kind == "release"
    return {
        "kind": row.kind,
        "by": {"key": row.key_id, "partner": row.partner},
        "at": rfc3339(row.at),
        "note": row.note,
        "reason": row.held_reason,
        "before": {"drive": _drive(row.from_drive), "creator": row.from_creator} if released else None,
        "after": {"drive": row.to_drive, "creator": row.to_creator} if released else None,
        "refund": row.refund_id,
    }
