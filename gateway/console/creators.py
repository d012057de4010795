"""The console's form of a creator. The API adds and lists creators; it has no route that changes one."""

from __future__ import annotations

from typing import Any

from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import amount_of, stand_in
from gateway.console.visit import Visit
from gateway.http.asgi import Response

Json = dict[str, Any]


class CreatorPages:
    """What is posted to `/console/drives/{drive}/creators`."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def add(self, visit: Visit) -> Response:
        """Add the creator of the form; where that fails, the form is shown again. Its key makes it once."""
        drive = stand_in(visit.param, visit.fields)
        try:
            drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
            path, body = f"/v1/drives/{drive['id']}/creators", _request_of(visit.form, drive["currency"])
            made = await self._calls.send(visit.bearer, "pledges", "POST", path, body, visit.form_key)
        except FAILURES as failure:
            return _form(visit, drive, refusal_of(failure))
        visit.record("creator.added", drive=drive["id"], creator=made["id"])
        return visit.back(f"/console/drives/{drive['id']}", "creator")


def _form(visit: Visit, drive: Json, refused: Refused) -> Response:
    return visit.page(
        "creator.html",
        status=refused.status,
        section="drives",
        once=visit.key_for(refused),
        drive=drive,
        fields=visit.form,
        errors=refused.errors,
        **visit.explain(refused),
    )


def _request_of(form: dict[str, str], currency: str) -> Json:
    body: Json = {name: form.get(name, "").strip() for name in ("slug", "name")}
    optional = {name: form.get(name, "").strip() for name in ("channel_url", "team")}
    body |= {name: value for name, value in optional.items() if value}
    if goal := form.get("creator_goal", "").strip():
        body["goal"] = {"currency": currency, "value": amount_of(goal, currency)}
    return body
