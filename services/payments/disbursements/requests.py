"""Bodies and views of disbursements."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, StringConstraints
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.http.fields import (
    Body,
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
from services.payments.approvals.requests import Evidence, StepView
from services.payments.approvals.states import Status
from services.payments.funds import Fund

_PUBLIC: dict[str, Any] = {
    "id": "dsb_01frtz5n00000000000000000f",
    "drive": "drv_01frtz5n00000000000000000a",
    "beneficiary": "Winter Relief",
    "amount": {"currency": "USD", "value": "15000.00"},
    "paid_at": "2022-02-01T09:30:00.000Z",
    "reference": "Transfer 2022-02-01/4",
    "reversed_at": None,
    "fund": "general",
}


class DisbursementRequest(Body):
    """Money that was paid to a beneficiary of a drive.

    `fund` is what it was paid from: `zakat` is what donors gave as such, `general` everything else. Zakat is
    paid out only where a request says so.
    """

    model_config = with_examples(
        {
            **{name: _PUBLIC[name] for name in ("beneficiary", "amount", "paid_at", "reference")},
            "evidence": "Statement 2022-02, line 3",
        }
    )

    beneficiary: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    amount: MoneyBody
    paid_at: Timestamp
    reference: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    evidence: Evidence
    fund: Literal["general", "zakat"] = "general"


class PaidOutView(BaseModel):
    """A disbursement that was paid out, as everybody sees it. With `reversed_at` the money came back."""

    model_config = with_examples(_PUBLIC)

    id: Annotated[str, id_schema("dsb")]
    drive: DriveIdView
    beneficiary: str
    amount: MoneyView
    paid_at: TimestampView
    reference: str
    reversed_at: TimestampView | None
    fund: Fund


class PaidOutPage(BaseModel):
    """A page of disbursements that were paid out; `next` is None at its end."""

    data: list[PaidOutView]
    next: str | None


class DisbursementView(PaidOutView):
    """A disbursement, as the drive's owner and admins see it.

    It is paid out while it is approved, and while its reversal is requested.
    """

    model_config = with_examples(
        {
            **_PUBLIC,
            "status": "pending",
            "evidence": "Statement 2022-02, line 3",
            "created_at": "2022-02-01T18:00:00.000Z",
            "history": [],
        }
    )

    status: Status
    evidence: str
    created_at: TimestampView
    history: list[StepView]


class DisbursementPage(BaseModel):
    """A page of disbursements; `next` is None at its end."""

    data: list[DisbursementView]
    next: str | None


def paid_out_json(row: Row[Any]) -> dict[str, Any]:
    """A disbursement as everybody sees it: no evidence, and no key."""
    return {
        "id": row.id,
        "drive": row.drive_id,
        "beneficiary": row.beneficiary,
        "amount": as_json(row.units, row.currency),
        "paid_at": rfc3339(row.paid_at),
        "reference": row.reference,
        "reversed_at": None if row.reversed_at is None else rfc3339(row.reversed_at),
        "fund": row.fund,
    }


def disbursement_json(row: Row[Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """A disbursement as the drive's owner sees it."""
    decided = {"status": row.status, "created_at": rfc3339(row.made_at), "history": history}
    return {**paid_out_json(row), "evidence": row.evidence, **decided}
