"""The console's page of a drive's matching pools: what each has left, a form for a new one, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from backbone import ids
from backbone.money import parse
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import latin, moment_of, money_of
from gateway.console.proposals import creators_of
from gateway.console.visit import Visit
from gateway.http.asgi import Response

_RATIO_DIGITS: Final = 2

Json = dict[str, Any]


class MatchingPage:
    """The page `/console/drives/{drive}/matching`, and what is posted to it."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def show(self, visit: Visit) -> Response:
        """The drive's pools in the order in which they give."""
        return await self._page(visit)

    async def create(self, visit: Visit) -> Response:
        """Create the pool of the form. The form's key makes a repeat harmless."""
        try:
            drive = await self._drive(visit)
            path = f"/v1/drives/{drive['id']}/matching-pools"
            body = request_of(visit.form, drive["currency"])
            made = await self._calls.send(visit.bearer, "payments", "POST", path, body, visit.form_key)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record("matching_pool.created", pool=made["id"])
        return visit.back(f"/console/drives/{visit.param}/matching", "pool_created")

    async def end(self, visit: Visit) -> Response:
        """End a pool early. One that has ended stays as it is."""
        pool = visit.form.get("pool", "")
        try:
            if not ids.is_id(pool, "mch"):
                raise Refused(404, {})
            await self._calls.send(visit.bearer, "payments", "POST", f"/v1/matching-pools/{pool}/end")
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record("matching_pool.ended", pool=pool)
        return visit.back(f"/console/drives/{visit.param}/matching", "pool_ended")

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        drive = await self._drive(visit)
        path = f"/v1/drives/{drive['id']}/matching-pools"
        page, creators = await asyncio.gather(
            self._calls.get(visit.bearer, "payments", path, after=visit.query.get("after"), limit="25"),
            creators_of(self._calls, visit, drive),
        )
        return visit.page(
            "matching.html",
            status=status,
            section="drives",
            drive=drive,
            here="matching",
            pools=[{**pool, "per_mille": used_per_mille(pool)} for pool in page["data"]],
            next=page["next"],
            **{"reason": "", "detail": "", "form": {}, "errors": {}, **creators, **told},
        )

    async def _drive(self, visit: Visit) -> Json:
        found: Json = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        return found


def used_per_mille(pool: Mapping[str, Any]) -> int:
    """How much of a pool is used, in thousandths: 1000 only once nothing is left."""
    used, cap = (parse(pool[name]["value"], pool[name]["currency"]) for name in ("used", "cap"))
    return used * 1000 // cap if cap else 1000


def request_of(form: Mapping[str, str], currency: str) -> Json:
    """The body of `POST /v1/drives/{drive}/matching-pools` that the form makes."""
    body: Json = {
        "sponsor": form.get("sponsor", "").strip(),
        "cap": money_of(form.get("cap", ""), currency),
        "ratio": ratio_of(form.get("ratio", "")),
    }
    if form.get("per_gift_cap", "").strip():
        body["per_gift_cap"] = money_of(form["per_gift_cap"], currency)
    if creator := form.get("creator", "").strip():
        body["creator"] = creator
    for name in ("starts_at", "ends_at"):
        if moment := moment_of(form.get(name, "")):
            body[name] = moment
    return body


def ratio_of(text: str) -> str:
    """A ratio with at least two digits after the point, as the API takes it: "1" is 1.00."""
    written = latin(text)
    whole, _, part = written.partition(".")
    if not (whole.isdecimal() and (part.isdecimal() or not part)):
        return written
    return f"{whole.lstrip('0') or '0'}.{part.ljust(_RATIO_DIGITS, '0')}"
