"""The console's pages of what one API key records and another approves.

These are gifts that came past the processor, contributions in hours and goods, and disbursements. Each has a
form that records one, and its list by status with the decisions that the status allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backbone import ids
from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.visit import Visit
from gateway.http.asgi import Response

_REASON_NEEDED: Final = ("reject",)
_SEEN: Final = ("approved", "reversal_requested")
"""The statuses in which something can be reversed, as a form shows them."""

Json = dict[str, Any]
Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of proposal: where it is kept, what its form asks, and which decisions it has."""

    page: str
    """The last part of its page's address, and the name of its template."""
    collection: str
    """The last part of the API's collection: `/v1/drives/{drive}/…` to record, `/v1/…` to list."""
    id_kind: ids.Kind
    actions: Sequence[str]
    statuses: Sequence[str]
    request_of: Callable[[Form, str], Json]
    """The body that records what the form says, in a currency."""


class ProposalPage:
    """The page `/console/drives/{drive}/…` of one kind, and what is posted to it.

    `more` reads what else the page shows of a drive.
    """

    def __init__(
        self,
        calls: ServiceCalls,
        kind: Kind,
        more: Callable[[Visit, Json], Awaitable[Json]] | None = None,
    ) -> None:
        self._calls = calls
        self._kind = kind
        self._more = more or self._creators

    async def show(self, visit: Visit) -> Response:
        """The form, and the proposals in one status, the newest first."""
        return await self._page(visit)

    async def record(self, visit: Visit) -> Response:
        """Record what the form says. The form's key makes a repeat harmless."""
        try:
            drive = await self._drive(visit)
            path = f"/v1/drives/{drive['id']}/{self._kind.collection}"
            body = self._kind.request_of(visit.form, drive["currency"])
            made = await self._calls.send(visit.bearer, "payments", "POST", path, body, visit.form_key)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record(f"{self._kind.page}.recorded", proposal=made["id"])
        return self._back(visit, "recorded", made)

    async def decide(self, visit: Visit) -> Response:
        """Approve, reject or reverse a proposal. A repeated decision changes nothing."""
        form = visit.form
        proposal, action, reason = form.get("proposal", ""), form.get("action", ""), form.get("reason", "")
        try:
            if not ids.is_id(proposal, self._kind.id_kind) or action not in self._kind.actions:
                raise Refused(404, {})
            body = {"reason": reason.strip()} if reason.strip() or action in _REASON_NEEDED else {}
            if action == "reverse":  # two steps by one route: the service compares what the form shows
                body["seen"] = seen if (seen := form.get("seen", "")) in _SEEN else _SEEN[0]
            path = f"/v1/{self._kind.collection}/{proposal}/{action}"
            made = await self._calls.send(visit.bearer, "payments", "POST", path, body)
        except FAILURES as failure:
            return await self._page(visit, **visit.again(refusal_of(failure)))
        visit.record(f"{self._kind.page}.{action}", proposal=proposal, status=made["status"])
        return self._back(visit, made["status"], made)

    def _back(self, visit: Visit, done: str, made: Json) -> Response:
        path = f"/console/drives/{visit.param}/{self._kind.page}"
        return visit.back(path, done, state=made["status"])

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        drive = await self._drive(visit)
        wanted = visit.query.get("state", "")
        state = wanted if wanted in self._kind.statuses else self._kind.statuses[0]
        page, more = await asyncio.gather(
            self._calls.get(
                visit.bearer, "payments", f"/v1/{self._kind.collection}",
                drive=drive["id"], status=state, after=visit.query.get("after"), limit="25",
            ),
            self._more(visit, drive),
        )  # fmt: skip
        return visit.page(
            f"{self._kind.page}.html",
            status=status,
            section="drives",
            drive=drive,
            here=self._kind.page,
            kind=self._kind,
            proposals=page["data"],
            next=page["next"],
            state=state,
            **{"reason": "", "detail": "", "form": {}, "errors": {}, **more, **told},
        )

    async def _drive(self, visit: Visit) -> Json:
        found: Json = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        return found

    async def _creators(self, visit: Visit, drive: Json) -> Json:
        return await creators_of(self._calls, visit, drive)


async def creators_of(calls: ServiceCalls, visit: Visit, drive: Json) -> Json:
    """The first hundred creators of a drive as `creators`, to be suggested; none while they are not known."""
    path = f"/v1/drives/{drive['id']}/creators"
    try:
        page = await calls.get(visit.bearer, "pledges", path, limit="100")
    except (Refused, ServiceUnavailable, Overloaded):
        return {"creators": []}
    return {"creators": page["data"]}
