"""The routes of the checkout queue: its state, its pause and its resumption. For admins only."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import APIRouter
from pydantic import BaseModel, Field

from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import CallerDep
from backbone.http.fields import Body, Text, TimestampView, with_examples
from backbone.http.problems import Forbidden, Unauthorized, documented
from services.payments.admission import store
from services.payments.admission.store import QueueState

log = structlog.get_logger()


class PauseBody(Body):
    """Why checkouts are paused."""

    model_config = Body.model_config | with_examples({"note": "Stripe reports an incident."})

    note: Annotated[Text, Field(max_length=500)] | None = None


WITHOUT_NOTE: Final = PauseBody()


class PauseView(BaseModel):
    """Since when checkouts are paused, by which API key, and why."""

    since: TimestampView
    by: str
    note: str | None


class CheckoutsView(BaseModel):
    """The checkout queue.

    `waiting` counts the pledges in it. `rate_per_s` is how many checkouts are opened in a second, as of the
    last admission. `eta_seconds` is the estimated wait of a pledge that joins now, without a pause.
    """

    model_config = with_examples(
        {"state": "open", "waiting": 3120, "rate_per_s": 20.0, "eta_seconds": 156, "paused": None}
    )

    state: Literal["open", "paused"]
    waiting: int
    rate_per_s: float
    eta_seconds: int
    paused: PauseView | None


def routes(database: Database, clock: Clock) -> APIRouter:
    """The routes of the checkout queue."""
    router = APIRouter()
    refusals: dict[int | str, dict[str, Any]] = documented(Unauthorized, Forbidden)

    @router.get("/v1/checkouts", response_model=CheckoutsView, responses=refusals)
    async def show_checkouts(caller: CallerDep) -> CheckoutsView:
        """Show the checkout queue.

        Whether it is paused, its length, its rate and the wait.
        """
        caller.require("admin")
        async with database.reading() as session:
            return await _view(session, await store.read_queue(session))

    @router.post("/v1/checkouts/pause", response_model=CheckoutsView, responses=refusals)
    async def pause_checkouts(caller: CallerDep, body: PauseBody = WITHOUT_NOTE) -> CheckoutsView:
        """Pause the opening of checkouts.

        Pledges are still accepted, and wait; their position and estimate stay as they are. A checkout that is
        being opened is opened, and one that is open can be paid. The pause outlasts a restart. Repeating it
        changes nothing.
        """
        caller.require("admin")
        async with database.transaction() as session:
            shown = await _view(session, await store.pause(session, caller.key_id, body.note, clock.now()))
        log.warning("checkouts.paused", by=caller.key_id)
        return shown

    @router.post("/v1/checkouts/resume", response_model=CheckoutsView, responses=refusals)
    async def resume_checkouts(caller: CallerDep) -> CheckoutsView:
        """Resume the opening of checkouts.

        Within a second. Repeating it changes nothing.
        """
        caller.require("admin")
        async with database.transaction() as session:
            shown = await _view(session, await store.resume(session))
        log.warning("checkouts.resumed", by=caller.key_id)
        return shown

    return router


async def _view(session: Transaction, state: QueueState) -> CheckoutsView:
    waiting, pause = await store.count_waiting(session), state.pause
    return CheckoutsView(
        state="open" if pause is None else "paused",
        waiting=waiting,
        rate_per_s=state.estimates.rate / 1_000,
        eta_seconds=-(-waiting * 1_000 // state.estimates.rate),
        paused=None if pause is None else PauseView(since=rfc3339(pause.since), by=pause.by, note=pause.note),
    )
