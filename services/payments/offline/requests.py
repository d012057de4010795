"""Bodies and views of offline gifts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, StringConstraints
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.http.fields import (
    Body,
    CreatorIdView,
    DriveIdView,
    MoneyBody,
    MoneyView,
    Text,
    Timestamp,
    TimestampView,
    id_schema,
    with_examples,
)
from backbone.money import as_json
from services.payments.approvals.requests import CreatorRef, Evidence, StepView
from services.payments.approvals.states import Status

Method = Literal["bank", "cash", "cheque", "sms", "crypto", "other"]

_EXAMPLE: dict[str, Any] = {
    "amount": {"currency": "USD", "value": "15000.00"},
    "method": "bank",
    "received_at": "2022-01-07T09:30:00Z",
    "evidence": "Statement 2022-01, line 17",
}


class GiftDonor(Body):
    """Who gave. Without a name the gift is shown as anonymous."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=100)] | None = None
    anonymous: bool = False


class OfflineGiftRequest(Body):
    """Money that was received past the processor."""

    model_config = with_examples(_EXAMPLE)

    amount: MoneyBody
    method: Method
    received_at: Timestamp
    evidence: Evidence
    creator: CreatorRef | None = None
    donor: GiftDonor | None = None
    message: Annotated[Text, StringConstraints(max_length=280)] | None = None


class OfflineGiftView(BaseModel):
    """An offline gift. It counts while it is approved, and while its reversal is requested."""

    model_config = with_examples(
        {
            **_EXAMPLE,
            "id": "ofg_01frtz5n00000000000000000f",
            "drive": "drv_01frtz5n00000000000000000a",
            "status": "pending",
            "received_at": "2022-01-07T09:30:00.000Z",
            "creator": None,
            "payment": None,
            "created_at": "2022-01-07T18:00:00.000Z",
            "history": [],
        }
    )

    id: Annotated[str, id_schema("ofg")]
    drive: DriveIdView
    status: Status
    amount: MoneyView
    method: Method
    received_at: TimestampView
    evidence: str
    creator: CreatorIdView | None
    payment: Annotated[str, id_schema("pay")] | None
    created_at: TimestampView
    history: list[StepView]


class OfflineGiftPage(BaseModel):
    """A page of offline gifts; `next` is None at its end."""

    data: list[OfflineGiftView]
    next: str | None


def gift_json(row: Row[Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """An offline gift as the API shows it."""
    return {
        "id": row.id,
        "drive": row.drive_id,
        "status": row.status,
        "amount": as_json(row.units, row.currency),
        "method": row.method,
        "received_at": rfc3339(row.received_at),
        "evidence": row.evidence,
        "creator": row.creator_id,
        "payment": row.payment_id,
        "created_at": rfc3339(row.made_at),
        "history": history,
    }
