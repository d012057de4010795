"""The console's pages of pledges and refunds, keys, and Stripe's events that could not be applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backbone import ids
from backbone.contracts.pledges import PledgeStatus
from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import amount_of, latin
from gateway.console.refund_page import done_by
from gateway.console.refunding import refunded
from gateway.console.unsaved import unsaved_page
from gateway.console.visit import Visit
from gateway.http.asgi import Response
from gateway.proxy.waits import BatchLookup, pledge_view

STATUSES: Final = tuple(status.value for status in PledgeStatus)
REFUNDABLE: Final = ("paid", "partly_refunded")
WEBHOOK_STATES: Final = ("set_aside", "waiting", "ignored", "applied")
_EVENT: Final = "evt_"

Json = dict[str, Any]


class RecordPages:
    """The pages of single records, found by search, and what may be done with each."""

    def __init__(self, calls: ServiceCalls, checkouts: BatchLookup) -> None:
        self._calls = calls
        self._checkouts = checkouts

    async def list_pledges(self, visit: Visit) -> Response:
        """The pledges that the session's partner made to a drive, newest first, with what payments knows."""
        return await self._pledge_page(visit)

    async def _pledge_page(
        self, visit: Visit, *, status: int = 200, pending: Mapping[str, str] | None = None, **told: Any
    ) -> Response:
        drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        wanted = visit.query.get("status", "")
        wanted = wanted if wanted in STATUSES else ""
        page = await self._calls.get(
            visit.bearer,
            "pledges",
            "/v1/pledges",
            drive=drive["id"],
            reference=visit.query.get("reference", "")[:255],
            status=wanted,
            after=visit.query.get("after"),
        )
        known = await self._checkouts.look_up_all([one["id"] for one in page["data"]])
        shown = [pledge_view(one, known[one["id"]]) for one in page["data"]]
        return visit.page(
            "pledges.html",
            status=status,
            section="drives",
            drive=drive,
            pledges=[one for one in shown if wanted in ("", one["status"])],
            next=page["next"],
            statuses=STATUSES,
            wanted=wanted,
            refundable=REFUNDABLE,
            pending=pending or {},
            **{"reason": "", "detail": "", **told},
        )

    async def refund(self, visit: Visit) -> Response:
        """Refund a pledge, all that is left of it or an amount. The form's key makes a repeat harmless.

        Where it is not known whether the refund was made, the form is shown again with its key.
        """
        drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        form = visit.form
        pledge = latin(form.get("pledge", ""))
        body: Json = {}
        if form.get("why", "").strip():
            body["reason"] = form["why"].strip()
        try:
            if not ids.is_id(pledge, "plg"):
                raise Refused(404, {})
            if form.get("amount", "").strip():
                currency = _currency(form, drive)
                body["amount"] = {"currency": currency, "value": amount_of(form["amount"], currency)}
            made = await refunded(self._calls, visit, f"/v1/pledges/{pledge}/refunds", body)
        except Refused as refused:
            told: dict[str, Any] = {**visit.explain(refused)}
            return await self._pledge_page(visit, status=refused.status, **told)
        except (ServiceUnavailable, Overloaded):
            return await self._unknown_refund(visit)
        visit.record("refund.made", pledge=pledge, refund=made["id"])
        return visit.back(f"/console/drives/{drive['id']}/pledges", done_by(made))

    async def _unknown_refund(self, visit: Visit) -> Response:
        unknown = Refused(503, {"type": "/problems/refund-unknown"})
        try:
            told: dict[str, Any] = {**visit.explain(unknown), "pending": visit.form}
            return await self._pledge_page(visit, status=503, **told)
        except (ServiceUnavailable, Overloaded):
            return unsaved_page(visit.request, visit.fields, "refused_refund_unknown")

    async def list_keys(self, visit: Visit) -> Response:
        """The keys of the installation, for admins."""
        return await self._key_page(visit)

    async def _key_page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        page = await self._calls.get(
            visit.bearer, "keys", "/v1/keys", after=visit.query.get("after"), limit="50"
        )
        return visit.page(
            "keys.html",
            status=status,
            section="keys",
            keys=page["data"],
            next=page["next"],
            form=dict(visit.fields),
            chosen=[value for name, value in visit.fields if name == "scope"],
            **{"reason": "", "detail": "", "errors": {}, "made": None, **told},
        )

    async def create_key(self, visit: Visit) -> Response:
        """Create a key and show it, this once."""
        form = visit.form
        kind = form.get("kind", "")
        body: Json = {
            "kind": kind,
            "mode": form.get("mode", "live"),
            "partner": form.get("partner", "").strip() or "default",
            "name": form.get("name", "").strip() or None,
        }
        if kind == "publishable":
            body["origins"] = form.get("origins", "").split()
        else:
            body["scopes"] = [value for name, value in visit.fields if name == "scope"]
        try:
            made = await self._calls.send(visit.bearer, "keys", "POST", "/v1/keys", body, visit.form_key)
        except FAILURES as failure:
            refused = refusal_of(failure)
            told = {**visit.explain(refused), "errors": refused.errors, "once": visit.key_for(refused)}
            return await self._key_page(visit, status=refused.status, **told)
        visit.record("key.created", key=made["id"], for_partner=made["partner"])
        return await self._key_page(visit, made=made)

    async def revoke_key(self, visit: Visit) -> Response:
        """Revoke a key; its sessions end with it."""
        key_id = visit.form.get("key", "")
        if not ids.is_id(key_id, "key"):
            raise Refused(404, {})
        await self._calls.send(visit.bearer, "keys", "DELETE", f"/v1/keys/{key_id}")
        visit.record("key.revoked", key=key_id)
        return visit.back("/console/keys", "revoked")

    async def list_webhooks(self, visit: Visit) -> Response:
        """Stripe's events in one state, for admins: at first those that could not be applied."""
        state = visit.query.get("state", "")
        state = state if state in WEBHOOK_STATES else WEBHOOK_STATES[0]
        page = await self._calls.get(
            visit.bearer, "payments", "/v1/webhooks", state=state, after=visit.query.get("after")
        )
        return visit.page(
            "webhooks.html",
            section="webhooks",
            webhooks=page["data"],
            next=page["next"],
            state=state,
            states=WEBHOOK_STATES,
        )

    async def retry_webhook(self, visit: Visit) -> Response:
        """Try a quarantined or ignored event again."""
        event = visit.form.get("event", "")
        if not (event.startswith(_EVENT) and event.replace("_", "").isalnum() and event.isascii()):
            raise Refused(404, {})
        await self._calls.send(visit.bearer, "payments", "POST", f"/v1/webhooks/{event}/retry")
        visit.record("webhook.retried", event_id=event)
        return visit.back("/console/webhooks", "retried")


def _currency(form: Mapping[str, str], drive: Mapping[str, Any]) -> str:
    """The currency that a form names, if the drive takes it. One that is not the pledge's is refused."""
    named = form.get("currency", "")
    return named if named in (drive.get("currencies") or ()) else str(drive["currency"])
