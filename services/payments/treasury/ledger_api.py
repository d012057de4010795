"""The routes of a drive's ledger: its postings, its trial balance and its statement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy import bindparam, select

from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.http.caller import Caller, CallerDep, NotYourDrive
from backbone.http.csv_reply import csv_reply, wants_csv
from backbone.http.problems import Forbidden, Invalid, NotFound, Unauthorized, documented
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.tables import POSTINGS
from services.payments.treasury import ledger_views as views
from services.payments.treasury.balances import (
    DriveLedger,
    read_drive_ledger,
    statements,
    trial_balance,
)
from services.payments.treasury.parameters import Accept, After, DriveRef
from services.payments.treasury.payment_views import posting_json

PAGE: Final = 25
CSV_PAGE: Final = 10_000
"""Postings in one CSV without a `limit`, some 1.5 MB. The last row's `number` is `after` of the next."""
WHOLE_READS: Final = 2
"""Statements and trial balances that are computed at the same time; others wait."""

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    **documented(Unauthorized, Forbidden, NotYourDrive, NotFound, Invalid),
}
OptionalLimit = Annotated[
    Annotated[int, Query(ge=1, le=100)] | SkipJsonSchema[None],
    Query(description=f"How many at most; {PAGE} by default, as CSV {CSV_PAGE:,}."),
]


class LedgerReads:
    """Reads drives' ledgers for callers who own them."""

    def __init__(self, database: Database, drives: DriveLookup, clock: Clock) -> None:
        self.clock = clock
        self._database = database
        self._drives = drives
        self._slots = asyncio.Semaphore(WHOLE_READS)

    async def postings(
        self, ref: str, caller: Caller, after: int, limit: int
    ) -> tuple[KnownDrive, list[Any]]:
        """Up to `limit` postings of a drive with numbers above `after`, the oldest first."""
        drive = await self._owned(ref, caller)
        values = {"drive": drive.id, "after": after, "most": limit}
        async with self._database.reading() as session:
            return drive, list((await session.execute(_POSTINGS, values)).all())

    async def whole(self, ref: str, caller: Caller) -> tuple[KnownDrive, DriveLedger]:
        """The sums of all postings of a drive."""
        drive = await self._owned(ref, caller)
        async with self._slots:
            found = await self._database.read_whole(
                lambda transaction: read_drive_ledger(transaction, drive.id)
            )
        return drive, found

    async def _owned(self, ref: str, caller: Caller) -> KnownDrive:
        caller.require("ledger")
        return await self._drives.find_owned(ref, caller)


_POSTINGS: Final = (
    select(POSTINGS)
    .where(POSTINGS.c.drive_id == bindparam("drive"), POSTINGS.c.number > bindparam("after"))
    .order_by(POSTINGS.c.drive_id, POSTINGS.c.number)
    .limit(bindparam("most"))
)


def routes(reads: LedgerReads) -> APIRouter:
    """The routes of a drive's ledger."""
    router = APIRouter()
    _add_ledger(router, reads)
    _add_balances(router, reads)
    return router


def _add_ledger(router: APIRouter, reads: LedgerReads) -> None:
    @router.get("/v1/drives/{drive}/ledger", response_model=views.LedgerPage, responses=_RESPONSES)
    async def list_postings(
        drive: DriveRef,
        caller: CallerDep,
        after: After = None,
        limit: OptionalLimit = None,
        accept: Accept = None,
    ) -> Any:
        """List the postings of a drive, oldest first.

        Postings are never changed: a correction is one more posting. With `Accept: text/csv` a page has up
        to 10,000 rows; the number of the last one is `after` of the next page.
        """
        as_csv = wants_csv(accept)
        most = limit or (CSV_PAGE if as_csv else PAGE)
        found, rows = await reads.postings(drive, caller, int(after or 0), most + 1)
        shown = rows[:most]
        if as_csv:
            return _csv(views.POSTING_COLUMNS, map(views.posting_cells, shown), found, "ledger")
        return {
            "data": [posting_json(row) for row in shown],
            "next": str(shown[-1].number) if len(rows) > most else None,
        }


def _add_balances(router: APIRouter, reads: LedgerReads) -> None:
    @router.get(
        "/v1/drives/{drive}/trial-balance", response_model=views.TrialBalanceView, responses=_RESPONSES
    )
    async def show_trial_balance(drive: DriveRef, caller: CallerDep, accept: Accept = None) -> Any:
        """Read the trial balance of a drive.

        The debits and credits of each account. In each currency both sums are equal.
        """
        found, sums = await reads.whole(drive, caller)
        accounts = trial_balance(sums.movements)
        if wants_csv(accept):
            return _csv(views.ACCOUNT_COLUMNS, map(views.account_cells, accounts), found, "trial-balance")
        return views.trial_balance_json(found.id, accounts, sums.through, reads.clock.now())

    @router.get("/v1/drives/{drive}/statement", response_model=views.StatementView, responses=_RESPONSES)
    async def show_statement(drive: DriveRef, caller: CallerDep, accept: Accept = None) -> Any:
        """Read the statement of a drive.

        What was given, returned, held, charged and paid out, in each currency.
        """
        found, sums = await reads.whole(drive, caller)
        lines = statements(sums, found.currency)
        if wants_csv(accept):
            cells = (row for line in lines for row in views.statement_cells(line))
            return _csv(views.STATEMENT_COLUMNS, cells, found, "statement")
        return {
            "drive": found.id,
            "closed_at": None if sums.closed_at is None else rfc3339(sums.closed_at),
            "as_of": rfc3339(reads.clock.now()),
            "through": sums.through,
            "currencies": [views.statement_json(line) for line in lines],
        }


def _csv(columns: Sequence[str], cells: Iterable[views.Cells], drive: KnownDrive, name: str) -> Response:
    return csv_reply(columns, cells, f"{drive.slug}-{name}.csv")
