"""The HTTP API of exchange rates."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import AfterValidator, WithJsonSchema
from sqlalchemy import Row

from backbone.amount_schemas import CURRENCY
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.exchange_rates import Pair, Quote, is_fresh
from backbone.http.caller import CallerDep
from backbone.http.problems import Conflict, Forbidden, Invalid, NotFound, Unauthorized, documented
from backbone.stripe_amounts import SUPPORTED_CURRENCIES
from services.payments.approvals.requests import past_moment
from services.payments.rates.domain import Refusal
from services.payments.rates.store import OfferedRate, list_rates, offer
from services.payments.rates.views import RateList, RateRequest, RateView, rate_json


class RateRefused(Conflict):
    slug, title = "rate-refused", "The exchange rate is not plausible"


_FIELDS: Final = {Refusal.STALE: "as_of", Refusal.OLDER: "as_of", Refusal.JUMP: "rate"}
_DETAILS: Final = {
    Refusal.STALE: "It is more than seven days old.",
    Refusal.OLDER: "A rate with a later as_of is known.",
    Refusal.JUMP: "It differs by more than 20 % from a rate of the last day, or from the newest one. "
    "Send confirm: true where it is right.",
}


def _known_currency(code: str) -> str:
    if code not in SUPPORTED_CURRENCIES:
        raise NotFound("No such currency.")
    return code


Code = Annotated[
    str,
    Path(description="ISO 4217, in upper case."),
    AfterValidator(_known_currency),
    WithJsonSchema(CURRENCY | {"examples": ["KWD"]}),
]


def routes(database: Database, clock: Clock) -> APIRouter:
    """The routes of exchange rates."""
    router = APIRouter()

    @router.put(
        "/v1/rates/{source}/{target}",
        response_model=RateView,
        responses=documented(Unauthorized, Forbidden, NotFound, Invalid, RateRefused),
    )
    async def set_rate(source: Code, target: Code, body: RateRequest, caller: CallerDep) -> dict[str, Any]:
        """Set an exchange rate.

        One unit of the first currency is worth `rate` units of the second. It holds for gifts captured from
        now on; what was captured keeps its rate. A rate that is older than seven days or than the newest
        one, or differs by more than 20 % from a rate of the last day or from the newest one, is refused.
        Send `confirm` for a real jump. Repeating the newest rate changes nothing.
        """
        caller.require("admin")
        if source == target:
            detail = "the two currencies must differ"
            raise Invalid(detail, errors=[{"pointer": "/path/target", "detail": detail}])
        now = clock.now()
        quote = Quote(body.rate, past_moment(body.as_of, now, "as_of"))
        offered = OfferedRate((source, target), quote, "api", caller.key_id, body.confirm)
        async with database.transaction() as session:
            refused = await offer(session, offered, now)
            rows = await list_rates(session)
        crash_point("payments.rates.after_commit")
        if refused is not None:
            detail = _DETAILS[refused]
            raise RateRefused(detail, errors=[{"pointer": f"/{_FIELDS[refused]}", "detail": detail}])
        return next(_shown(*row, now) for row in rows if _pair(*row) == (source, target))

    @router.get("/v1/rates", response_model=RateList, responses=documented(Unauthorized, Forbidden))
    async def list_all_rates(caller: CallerDep) -> dict[str, Any]:
        """List the newest exchange rate of each pair.

        A pair without a rate of its own is converted through the euro, where both rates of the euro are
        known. `refused` is a newer rate of the list (`ATAA_RATES`) that is not used.
        """
        caller.require("drives")
        now = clock.now()
        async with database.reading() as session:
            return {"data": [_shown(*row, now) for row in await list_rates(session)]}

    return router


def _pair(row: Row[Any] | None, refused: Row[Any] | None) -> Pair:
    named = row if row is not None else refused
    assert named is not None
    return named.source_currency, named.target_currency


def _shown(row: Row[Any] | None, refused: Row[Any] | None, now: datetime) -> dict[str, Any]:
    fresh = row is not None and is_fresh(Quote(row.rate, row.as_of), now)
    return rate_json(row, refused, fresh=fresh)
