"""The console's page of a drive's money: its audit, its statement, and held payments to decide about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from backbone import ids
from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.refund_page import done_by
from gateway.console.visit import Visit
from gateway.http.asgi import Response

AUDITED: Final = ("ledger", "processor", "totals", "held", "difference")
STATED: Final = (
    "gross", "offline", "matched", "refunds", "disputes", "raised", "held", "fees", "paid_out", "late",
)  # fmt: skip
ZAKAT: Final = ("gross", "refunds", "disputes", "raised", "fees", "paid_out", "owed")
"""The amounts of an audit and of a statement, in the order in which they are shown; those of its zakat."""

AUDIT_WAIT_S: Final = 3.0

Json = dict[str, Any]


class MoneyPage:
    """The page `/console/drives/{drive}/money`, for keys with the scope `ledger`, and its two decisions."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def show(self, visit: Visit) -> Response:
        """The audit, the statement, and the drive's held payments, the newest first."""
        return await self._page(visit)

    async def release(self, visit: Visit) -> Response:
        """Count a held payment, in its drive or in the one that the form names."""
        body = {"note": visit.form.get("note", "").strip()}
        if target := visit.form.get("target", "").strip():
            body["drive"] = target
        return await self._decide(visit, "release", body, lambda _: "released")

    async def give_back(self, visit: Visit) -> Response:
        """Refund all that is left of a held payment."""
        reason = visit.form.get("note", "").strip()
        return await self._decide(visit, "refunds", {"reason": reason} if reason else {}, done_by)

    async def _decide(
        self, visit: Visit, action: str, body: Json, done_of: Callable[[Json], str]
    ) -> Response:
        """Send a decision under the form's key, so that a double click decides once."""
        payment = visit.form.get("payment", "")
        try:
            if not ids.is_id(payment, "pay"):
                raise Refused(404, {})
            path = f"/v1/payments/{payment}/{action}"
            made = await self._calls.send(visit.bearer, "payments", "POST", path, body, visit.form_key)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        done = done_of(made)
        visit.record(f"payment.{done}", payment=payment)
        return visit.back(f"/console/drives/{visit.param}/money", done)

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        path = f"/v1/drives/{drive['id']}"
        payments, statement, audit = await asyncio.gather(
            self._calls.get(
                visit.bearer, "payments", "/v1/payments",
                drive=drive["id"], held="true", after=visit.query.get("after"), limit="25",
            ),
            self._calls.get(visit.bearer, "payments", f"{path}/statement"),
            self._audit(visit, path),
        )  # fmt: skip
        return visit.page(
            "money.html",
            status=status,
            section="drives",
            drive=drive,
            payments=payments["data"],
            next=payments["next"],
            statement=statement,
            audit=audit,
            audited=AUDITED,
            stated=STATED,
            stated_zakat=ZAKAT,
            **{"reason": "", "detail": "", "form": {}, **told},
        )

    async def _audit(self, visit: Visit, path: str) -> Json | None:
        """The newest audit; None while there is none: a drive's first one may take some seconds."""
        try:
            async with asyncio.timeout(AUDIT_WAIT_S):
                found: Json = await self._calls.get(visit.bearer, "payments", f"{path}/audit")
        except (ServiceUnavailable, Overloaded, TimeoutError):
            return None
        return found
