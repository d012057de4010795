"""The internal HTTP API of pledges: queries of the other services, its books, and what it has yet to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from backbone.http.caller import InternalDep, authenticated_caller, internal_caller
from services.pledges.queries import Queries
from services.pledges.request_parsing import direct_route, string_list
from services.pledges.requests import CreatorSearch, FunnelPeriod
from services.pledges.views import json_response

Find = Callable[[Sequence[str]], Awaitable[dict[str, Any]]]
"""Finds objects by id or reference; unknown ones are left out."""


def routes(queries: Queries, behind: Callable[[], Awaitable[int]]) -> APIRouter:
    """The routes under `/internal`; `behind` counts the events that are not consumed yet."""
    router = APIRouter(include_in_schema=False)
    _add_lookup(router, "/internal/pledges", "ids", queries.pledges)
    _add_lookup(router, "/internal/checkout-details", "ids", queries.checkout_details)
    _add_lookup(router, "/internal/words", "ids", queries.donor_texts)
    _add_lookup(router, "/internal/receipts", "ids", queries.receipt_details)
    _add_lookup(router, "/internal/drives", "refs", queries.drives)
    _add_lookup(router, "/internal/rates", "pairs", queries.rates)
    _add_lookup(router, "/internal/creators", "refs", queries.creators_by_ref)

    @router.post("/internal/creator-search")
    async def search_creators(_caller: InternalDep, search: CreatorSearch) -> Response:
        return json_response({"data": await queries.search_creators(search.drive, search.text)})

    @router.post("/internal/funnel")
    async def count_pledges(_caller: InternalDep, period: FunnelPeriod) -> Response:
        return json_response(await queries.pledged_by_source(period.drive, period.since, period.until))

    @router.get("/internal/books")
    async def books(_caller: InternalDep) -> Response:
        return json_response(await queries.books())

    @router.get("/internal/quiet")
    async def drained(_caller: InternalDep) -> Response:
        # Before the outbox: events that are consumed in between may add rows to it.
        unconsumed = await behind()
        return json_response({"outbox": await queries.outbox_rows(), "behind": unconsumed})

    return router


def _add_lookup(router: APIRouter, path: str, field: str, find: Find) -> None:
    """Add a POST route that answers `{"data": …}` for the list under `field` in its body."""

    async def look_up(request: Request) -> Response:
        await internal_caller(await authenticated_caller(request))
        return json_response({"data": await find(await string_list(request, field))})

    router.add_api_route(path, look_up, methods=["POST"], route_class_override=direct_route(look_up))
