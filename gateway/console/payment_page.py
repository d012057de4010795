"""The console's page of one payment: what is known about its money, its refund, and its release if held."""

from __future__ import annotations

from typing import Any

from backbone import ids
from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import latin, money_of
from gateway.console.refund_page import done_by
from gateway.console.refunding import refunded
from gateway.console.unsaved import unsaved_page
from gateway.console.visit import Visit
from gateway.http.asgi import Response

Json = dict[str, Any]


class PaymentPage:
    """The pages `/console/payments` and `/console/payments/{payment}`, for keys with the scope `ledger`."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def find(self, visit: Visit) -> Response:
        """Go to the payment of the id that is searched, or list the payments of the pledge that is."""
        asked = latin(visit.query.get("id", "")).lower()
        if ids.is_id(asked, "pay"):
            return visit.to(f"/console/payments/{asked}")
        found: list[Json] = []
        if ids.is_id(asked, "plg"):
            page = await self._calls.get(visit.bearer, "payments", "/v1/payments", pledge=asked)
            found = page["data"]
        if len(found) == 1:
            return visit.to(f"/console/payments/{found[0]['id']}")
        return visit.page("payments.html", section="drives", asked=asked, payments=found)

    async def show(self, visit: Visit) -> Response:
        """The payment with its facts, postings and decisions."""
        return await self._page(visit)

    async def refund(self, visit: Visit) -> Response:
        """Refund the payment, all that is left of it or an amount, once under the form's key."""
        try:
            payment = await self._payment(visit)
            body: Json = {}
            if visit.form.get("amount", "").strip():
                body["amount"] = money_of(visit.form["amount"], payment["captured"]["currency"])
            if reason := visit.form.get("note", "").strip():
                body["reason"] = reason
            made = await refunded(self._calls, visit, f"/v1/payments/{payment['id']}/refunds", body)
        except Refused as refused:
            return await self._page(visit, **visit.again(refused))
        except (ServiceUnavailable, Overloaded):
            return await self._unknown_refund(visit)
        visit.record("refund.made", payment=payment["id"], refund=made["id"])
        return visit.back(f"/console/payments/{payment['id']}", done_by(made))

    async def release(self, visit: Visit) -> Response:
        """Count the payment, which is held, in its drive or in the one that the form names."""
        body = {"note": visit.form.get("note", "").strip()}
        for field, name in (("target", "drive"), ("creator", "creator")):
            if given := visit.form.get(field, "").strip():
                body[name] = given
        try:
            path = f"/v1/payments/{_checked(visit.param)}/release"
            await self._calls.send(visit.bearer, "payments", "POST", path, body, visit.form_key)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record("payment.released", payment=visit.param)
        return visit.back(f"/console/payments/{visit.param}", "released")

    async def _unknown_refund(self, visit: Visit) -> Response:
        unknown = Refused(503, {"type": "/problems/refund-unknown"})
        told = {**visit.explain(unknown), "once": visit.form.get("once", ""), "form": visit.form}
        try:
            return await self._page(visit, status=503, **told)
        except (ServiceUnavailable, Overloaded):
            return unsaved_page(visit.request, visit.fields, "refused_refund_unknown")

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        payment = await self._payment(visit)
        drive = None
        if payment["drive"] is not None:
            drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{payment['drive']}")
        return visit.page(
            "payment.html",
            status=status,
            section="drives",
            payment=payment,
            drive=drive,
            here="",
            **{"reason": "", "detail": "", "form": {}, "errors": {}, **told},
        )

    async def _payment(self, visit: Visit) -> Json:
        path = f"/v1/payments/{_checked(visit.param)}"
        found: Json = await self._calls.get(visit.bearer, "payments", path)
        return found


def _checked(payment: str) -> str:
    if not ids.is_id(payment, "pay"):
        raise Refused(404, {})
    return payment
