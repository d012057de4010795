"""The console's pages of drives: the list, one drive with its figures, the form, and its changes of state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backbone.clock import Clock
from backbone.http.service_client import ServiceUnavailable
from backbone.money import decimal_string
from gateway.console import charts
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import (
    ROW_FIELDS,
    SPARE_ROWS,
    Fields,
    changes_of,
    fields_of,
    request_of,
    rows_of,
    shown_of,
    stand_in,
)
from gateway.console.visit import Visit
from gateway.http.asgi import Response
from gateway.live.hub import Hub

LOG_ROWS: Final = 500
"""Rows of the drive's log that its charts are made of."""
_PAGE: Final = 100
MAX_SOURCES: Final = 8

TRANSITIONS: Final[Mapping[str, Sequence[str]]] = {
    "draft": ("open", "close"),
    "live": ("pause", "close"),
    "paused": ("resume", "close"),
    "closed": (),
}

Json = dict[str, Any]


class DrivePages:
    """The pages under `/console` and `/console/drives`."""

    def __init__(self, calls: ServiceCalls, hub: Hub, clock: Clock) -> None:
        self._calls = calls
        self._hub = hub
        self._clock = clock

    async def list_all(self, visit: Visit) -> Response:
        """The drives of the session's partner; of every partner for an admin."""
        page = await self._calls.get(
            visit.bearer, "pledges", "/v1/drives", after=visit.query.get("after"), limit="25"
        )
        totals = [await self._totals(drive["id"]) for drive in page["data"]]
        drives = [{**drive, "totals": found} for drive, found in zip(page["data"], totals, strict=True)]
        return visit.page("drives.html", section="drives", drives=drives, next=page["next"])

    async def show(self, visit: Visit) -> Response:
        """One drive: figures, charts, creators, and what may be done with it."""
        drive = await self._drive(visit)
        creators = await self._calls.get(
            visit.bearer,
            "pledges",
            f"/v1/drives/{drive['id']}/creators",
            after=visit.query.get("after"),
            limit="50",
        )
        totals = await self._totals(drive["id"])
        return visit.page(
            "drive.html",
            section="drives",
            drive=drive,
            totals=totals,
            creators=creators,
            mine=visit.bearer.kind == "admin" or drive["partner"] == visit.bearer.partner,
            transitions=TRANSITIONS.get(drive["state"], ()),
            waiting=await self._waiting(),
            charts=await self._charts(visit, drive, totals),
        )

    async def new(self, visit: Visit) -> Response:
        """The empty form of a drive."""
        return self._form(visit, None, [("currency", "USD")])

    async def create(self, visit: Visit) -> Response:
        """Create the drive of the form, and show it. The form's own key makes a double click harmless."""
        try:
            drive = await self._calls.send(
                visit.bearer, "pledges", "POST", "/v1/drives", request_of(visit.fields), visit.form_key
            )
        except FAILURES as failure:
            return self._form(visit, None, visit.fields, refusal_of(failure))
        visit.record("drive.created", drive=drive["id"])
        return visit.back(f"/console/drives/{drive['id']}", "created")

    async def edit(self, visit: Visit) -> Response:
        """The form of a drive that exists."""
        drive = await self._drive(visit)
        return self._form(visit, drive, fields_of(drive))

    async def change(self, visit: Visit) -> Response:
        """Change what the form changes of the drive."""
        drive = stand_in(visit.param, visit.fields)
        try:
            drive = await self._drive(visit)
            changes = changes_of(drive, visit.fields)
            if changes:
                path = f"/v1/drives/{drive['id']}"
                await self._calls.send(visit.bearer, "pledges", "PATCH", path, changes)
        except FAILURES as failure:
            return self._form(visit, drive, visit.fields, refusal_of(failure))
        if changes:
            visit.record("drive.changed", drive=drive["id"], fields=",".join(sorted(changes)))
        return visit.back(f"/console/drives/{drive['id']}", "changed" if changes else "unchanged")

    async def transition(self, visit: Visit) -> Response:
        """Open, pause, resume or close the drive."""
        drive = await self._drive(visit)
        action = visit.form.get("action", "")
        if action not in ("open", "pause", "resume", "close"):
            raise Refused(422, {})
        await self._calls.send(visit.bearer, "pledges", "POST", f"/v1/drives/{drive['id']}/{action}")
        visit.record(f"drive.{action}", drive=drive["id"])
        return visit.back(f"/console/drives/{drive['id']}", action)

    def _form(
        self, visit: Visit, drive: Json | None, fields: Fields, refused: Refused | None = None
    ) -> Response:
        rows = {
            group: [*rows_of(fields, group), *([("",) * len(names)] * SPARE_ROWS)]
            for group, names in ROW_FIELDS.items()
        }
        told = {"reason": "", "detail": ""} if refused is None else visit.explain(refused)
        return visit.page(
            "drive_form.html",
            status=200 if refused is None else refused.status,
            section="drives",
            once=visit.key_for(refused),
            drive=drive,
            shown=dict(fields).get("shown")
            or (shown_of(drive) if drive is not None and refused is None else ""),
            form=dict(fields),
            rows=rows,
            errors={} if refused is None else refused.errors,
            **told,
        )

    async def _drive(self, visit: Visit) -> Json:
        found: Json = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        return found

    async def _totals(self, drive_id: str) -> Json | None:
        """The drive's totals as the public route answers them; None while they are not known."""
        if not self._hub.bootstrapped:
            return None
        try:
            (view,) = await self._hub.lookups.find([drive_id])
        except ServiceUnavailable:
            return None
        if view is None:
            return None
        freshness = self._hub.freshness
        found: Json = json.loads(view.bytes("full", freshness.state(view), freshness))
        return found

    async def _waiting(self) -> int | None:
        """How many pledges of the whole installation wait for their checkout; None while it is not known."""
        try:
            counts = await self._calls.get_internal("payments", "/internal/quiet")
        except ServiceUnavailable:
            return None
        return int(counts["tickets"])

    async def _charts(self, visit: Visit, drive: Json, totals: Json | None) -> Json | None:
        """The charts of the drive's newest gifts; None while the log cannot be read."""
        if totals is None:
            return None
        try:
            rows = await self._newest_rows(visit, drive["id"], totals["sequence"])
            board = await self._calls.get(
                visit.bearer,
                "leaderboard",
                f"/v1/drives/{drive['id']}/leaderboards/sources",
                limit=str(MAX_SOURCES),
            )
        except (Refused, ServiceUnavailable):
            return None
        currency = drive["currency"]
        return {
            "minutes": charts.money_by_minute(rows, currency, self._clock.now()),
            "sizes": charts.gift_sizes(rows, currency),
            "sources": charts.by_source(board["data"], currency),
            "rows": len(rows),
            "amount": lambda units: {"value": decimal_string(units, currency), "currency": currency},
        }

    async def _newest_rows(self, visit: Visit, drive_id: str, sequence: int) -> list[Json]:
        rows: list[Json] = []
        after = max(0, sequence - LOG_ROWS)
        for _ in range(LOG_ROWS // _PAGE):
            page = await self._calls.get(
                visit.bearer,
                "leaderboard",
                f"/v1/drives/{drive_id}/events",
                after=str(after),
                limit=str(_PAGE),
            )
            rows += page["data"]
            if page["next"] is None:
                break
            after = rows[-1]["sequence"]
        return rows
