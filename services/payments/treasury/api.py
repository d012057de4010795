"""The routes of a treasurer: payments with everything known about their money."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic.json_schema import SkipJsonSchema

from backbone.database.database import Database
from backbone.http.caller import Caller, CallerDep, NotYourDrive
from backbone.http.problems import Forbidden, Invalid, NotFound, Unauthorized, documented
from services.payments.domain import NO_DRIVE
from services.payments.drive_lookup import DriveLookup
from services.payments.treasury.parameters import After, DriveFilter, Limit, PaymentRef, PledgeFilter
from services.payments.treasury.payment_reads import (
    MAX_DRIVES,
    ListedStatus,
    Wanted,
    drives_of,
    list_payments,
    read_payment,
)
from services.payments.treasury.payment_views import PaymentPage, PaymentView


def routes(database: Database, drives: DriveLookup) -> APIRouter:
    """The routes that read payments."""
    router = APIRouter()

    @router.get(
        "/v1/payments",
        response_model=PaymentPage,
        responses=documented(Unauthorized, Forbidden, NotYourDrive, NotFound, Invalid),
    )
    async def list_all_payments(
        caller: CallerDep,
        drive: DriveFilter = None,
        status: Annotated[
            ListedStatus | SkipJsonSchema[None], Query(description="Those in this status.")
        ] = None,
        held: Annotated[bool, Query(description="Only those that are not counted.")] = False,
        pledge: PledgeFilter = None,
        warned: Annotated[bool, Query(description="Only those that a card issuer warned of.")] = False,
        after: After = None,
        limit: Limit = 25,
    ) -> dict[str, Any]:
        """List payments that were captured, the newest pledges first.

        Those of one drive, or of the partner's drives (100 at most). Money that names no known drive is
        listed for admins only.
        """
        caller.require("ledger")
        of = await _drives(database, drives, caller, drive)
        wanted = Wanted(status, held, None if after is None else int(after), limit, pledge, warned)
        async with database.reading() as session:
            return await list_payments(session, of, wanted)

    @router.get(
        "/v1/payments/{payment}",
        response_model=PaymentView,
        responses=documented(Unauthorized, Forbidden, NotYourDrive, NotFound),
    )
    async def show_payment(payment: PaymentRef, caller: CallerDep) -> dict[str, Any]:
        """Read a payment.

        With what Stripe reported of it, its rows in the ledger, and who decided what about it.
        """
        caller.require("ledger")
        async with database.reading() as session:
            found = await read_payment(session, payment)
        if found is None:
            raise NotFound("No such payment.")
        await drives.require_access(found["drive"] or NO_DRIVE, caller)
        return found

    return router


async def _drives(
    database: Database, drives: DriveLookup, caller: Caller, drive: str | None
) -> list[str] | None:
    """The drives whose payments the caller wants listed; None for those of all."""
    if drive is not None:
        return [(await drives.find_owned(drive, caller)).id]
    if caller.admin:
        return None
    async with database.reading() as session:
        owned = await drives_of(session, caller.partner, test=caller.mode == "test")
    if len(owned) > MAX_DRIVES:
        detail = f"Name one: you have more than {MAX_DRIVES} drives."
        raise Invalid(detail, errors=[{"pointer": "/query/drive", "detail": detail}])
    return owned
