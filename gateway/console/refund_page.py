"""The console's page of refunds that a second key decides."""

from __future__ import annotations

from typing import Any, Final

from backbone import ids
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.visit import Visit
from gateway.http.asgi import Response

STATES: Final = ("needed", "approved", "rejected")
ACTIONS: Final = ("approve", "reject")

Json = dict[str, Any]


def done_by(made: Json) -> str:
    """What is told of a refund that was just asked for: made, or waiting for a second key."""
    return "refund_waits" if made.get("approval") else "refunded"


class LargeRefundPage:
    """The page `/console/refunds`, for keys with the scope `refunds`, and the decisions on it."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def show(self, visit: Visit) -> Response:
        """The refunds in one state, at first those to be decided, the newest first."""
        return await self._page(visit)

    async def decide(self, visit: Visit) -> Response:
        """Approve or reject a refund. A repeated decision changes nothing."""
        refund, action = visit.form.get("proposal", ""), visit.form.get("action", "")
        reason = visit.form.get("reason", "").strip()
        try:
            if not ids.is_id(refund, "rfd") or action not in ACTIONS:
                raise Refused(404, {})
            body = {"reason": reason} if reason or action == "reject" else {}
            path = f"/v1/refunds/{refund}/{action}"
            made = await self._calls.send(visit.bearer, "payments", "POST", path, body)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record(f"refund.{action}", refund=refund, status=made["status"])
        state = made["approval"]["state"]
        return visit.back("/console/refunds", f"refund_{state}", state=state)

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        wanted = visit.query.get("state", "")
        state = wanted if wanted in STATES else STATES[0]
        page = await self._calls.get(
            visit.bearer, "payments", "/v1/refunds",
            approval=state, after=visit.query.get("after"), limit="25",
        )  # fmt: skip
        return visit.page(
            "large_refunds.html",
            status=status,
            section="refunds",
            refunds=page["data"],
            next=page["next"],
            state=state,
            states=STATES,
            **{"reason": "", "detail": "", "form": {}, "errors": {}, **told},
        )
