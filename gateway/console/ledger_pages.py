"""The console's pages of a drive's ledger and statement and of payouts, and each as a CSV to download."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.console.client import ServiceCalls
from gateway.console.money_page import STATED, ZAKAT
from gateway.console.visit import Visit
from gateway.http.asgi import Response

Json = dict[str, Any]


class LedgerPages:
    """The pages of a drive's books, for keys with the scope `ledger`, and of payouts, for admins."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def ledger(self, visit: Visit) -> Response:
        """The trial balance, and a page of postings, the oldest first."""
        drive = await self._drive(visit)
        path = f"/v1/drives/{drive['id']}"
        after = _after(visit)
        balance, page = await asyncio.gather(
            self._calls.get(visit.bearer, "payments", f"{path}/trial-balance"),
            self._calls.get(visit.bearer, "payments", f"{path}/ledger", after=after, limit="50"),
        )
        return visit.page(
            "ledger.html",
            section="drives",
            drive=drive,
            here="ledger",
            balance=balance,
            postings=page["data"],
            next=page["next"],
            after=after or "0",
        )

    async def statement(self, visit: Visit) -> Response:
        """The statement on a page that prints without the console around it."""
        drive = await self._drive(visit)
        path = f"/v1/drives/{drive['id']}/statement"
        statement = await self._calls.get(visit.bearer, "payments", path)
        return visit.page(
            "statement.html",
            section="drives",
            drive=drive,
            here="statement",
            statement=statement,
            stated=STATED,
            stated_zakat=ZAKAT,
        )

    async def ledger_csv(self, visit: Visit) -> Response:
        """Up to 10,000 postings after the number `after`."""
        return await self._csv(visit, "ledger", after=_after(visit))

    async def trial_balance_csv(self, visit: Visit) -> Response:
        """The trial balance as a table."""
        return await self._csv(visit, "trial-balance")

    async def statement_csv(self, visit: Visit) -> Response:
        """The statement as a table."""
        return await self._csv(visit, "statement")

    async def payouts(self, visit: Visit) -> Response:
        """The payouts to the bank account, the newest first, each with its difference."""
        page = await self._calls.get(
            visit.bearer, "payments", "/v1/payouts", after=_payout(visit), limit="50"
        )
        return visit.page(
            "payouts.html", section="payouts", payouts=page["data"], next=page["next"], after=_payout(visit)
        )

    async def payouts_csv(self, visit: Visit) -> Response:
        """A hundred payouts as a table."""
        query = {"after": _payout(visit), "limit": "100"}
        return await self._table(visit, "/v1/payouts", "payouts", **query)

    async def _csv(self, visit: Visit, name: str, **query: str | None) -> Response:
        drive = await self._drive(visit)
        path = f"/v1/drives/{drive['id']}/{name}"
        return await self._table(visit, path, f"{drive['slug']}-{name}", **query)

    async def _table(self, visit: Visit, path: str, name: str, **query: str | None) -> Response:
        body = await self._calls.get_csv(visit.bearer, "payments", path, **query)
        headers = [
            (b"content-type", b"text/csv; charset=utf-8"),
            (b"content-disposition", f'attachment; filename="{name}.csv"'.encode("ascii", "replace")),
            (b"cache-control", b"private, no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        return Response(200, headers, body)

    async def _drive(self, visit: Visit) -> Json:
        found: Json = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        return found


def _after(visit: Visit) -> str | None:
    """The number of a posting in the query, if it has the form of one."""
    asked = visit.query.get("after", "").strip()
    return asked if asked.isascii() and asked.isdecimal() and len(asked) <= 18 else None


def _payout(visit: Visit) -> str | None:
    asked = visit.query.get("after", "")
    return asked if asked.startswith("po_") else None
