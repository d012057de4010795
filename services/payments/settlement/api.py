"""The route of payouts."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone.clock import rfc3339
from backbone.database.database import Database
from backbone.http.caller import CallerDep
from backbone.http.csv_reply import csv_reply, wants_csv
from backbone.http.fields import MoneyView, TimestampView, with_examples
from backbone.money import decimal_string
from services.payments.settlement import queries

COLUMNS: Final = (
    "id", "currency", "amount", "arrival_date", "status", "reconciled", "difference", "payments",
    "created_at",
)  # fmt: skip


class PayoutView(BaseModel):
    """A payout of the account to its bank.

    `difference` is its amount less the net of its balance transactions, null until they are complete;
    `reconciled` says that it is 0. `payments` counts the payments with a balance transaction in it.
    """

    model_config = with_examples(
        {
            "id": "po_1PbCdE",
            "amount": {"currency": "USD", "value": "1250.00"},
            "arrival_date": "2026-11-30",
            "status": "paid",
            "reconciled": True,
            "difference": {"currency": "USD", "value": "0.00"},
            "payments": 52,
            "created_at": "2026-11-28T06:00:00Z",
        }
    )

    id: str
    amount: MoneyView
    arrival_date: Annotated[str, Field(json_schema_extra={"format": "date"})]
    status: str
    reconciled: bool
    difference: MoneyView | None
    payments: int | None
    created_at: TimestampView


class PayoutPage(BaseModel):
    """A page of payouts, newest first; pass `next` as `after` for the next page."""

    data: list[PayoutView]
    next: str | None


def add_payout_routes(router: APIRouter, database: Database) -> None:
    """Add `GET /v1/payouts`."""

    @router.get(
        "/v1/payouts",
        response_model=PayoutPage,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def list_payouts(
        caller: CallerDep,
        accept: Annotated[str | None, Header(include_in_schema=False)] = None,
        after: Annotated[
            Annotated[str, StringConstraints(pattern="^po_[A-Za-z0-9_]{1,200}$")] | SkipJsonSchema[None],
            Query(description="`next` of the page before."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 25,
    ) -> Response:
        """List the payouts to the bank account, newest first.

        Each is compared with its balance transactions. For admins: payouts are the installation's, not one
        partner's. `Accept: text/csv` returns the page as CSV, with a `Link` to the next one.
        """
        caller.require("admin")
        async with database.reading() as session:
            rows = await queries.list_payouts(session, after, limit + 1)
        following = rows[limit - 1].id if len(rows) > limit else None
        page = PayoutPage(data=[_view(row) for row in rows[:limit]], next=following)
        if wants_csv(accept):
            reply = csv_reply(COLUMNS, [_cells(each) for each in page.data], "payouts.csv")
            if following is not None:
                reply.headers["link"] = f'</v1/payouts?after={following}&limit={limit}>; rel="next"'
            return reply
        return JSONResponse(page.model_dump())


def _view(row: Any) -> PayoutView:
    def money(units: int) -> MoneyView:
        return MoneyView(currency=row.currency, value=decimal_string(units, row.currency))

    return PayoutView(
        id=row.id,
        amount=money(row.amount),
        arrival_date=row.arrival_at.date().isoformat(),
        status=row.status,
        reconciled=row.difference == 0,
        difference=None if row.difference is None else money(row.difference),
        payments=row.payments,
        created_at=rfc3339(row.created_at),
    )


def _cells(payout: PayoutView) -> list[str | int | None]:
    difference = payout.difference.value if payout.difference else None
    return [
        payout.id, payout.amount.currency, payout.amount.value, payout.arrival_date, payout.status,
        "true" if payout.reconciled else "false", difference, payout.payments, payout.created_at,
    ]  # fmt: skip
