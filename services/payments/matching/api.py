"""The HTTP API of matching pools."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.http.caller import CallerDep, NotYourDrive
from backbone.http.fields import REFERENCE, id_schema, text_schema
from backbone.http.problems import Invalid, NotFound, documented
from backbone.idempotency import KeyReused, OptionalKey, keyed_response
from services.payments.matching.commands import MatchingPools, NewPool, TooManyPools
from services.payments.matching.requests import PoolRequest
from services.payments.matching.views import PoolPage, PoolView


def _drive_ref(drive: str) -> str:
    if re.fullmatch(REFERENCE, drive) is None:
        raise NotFound("No such drive.")
    return drive


def _pool_id(pool: str) -> str:
    if not ids.is_id(pool, "mch"):
        raise NotFound("No such matching pool.")
    return pool


DriveRef = Annotated[
    str,
    Path(description="The drive's id or slug, in lower case."),
    AfterValidator(_drive_ref),
    text_schema(REFERENCE, examples=["winter"]),
]
PoolRef = Annotated[str, Path(description="The pool's id."), AfterValidator(_pool_id), id_schema("mch")]
After = Annotated[
    Annotated[str, StringConstraints(pattern="^[0-9]{1,18}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]


def routes(pools: MatchingPools) -> APIRouter:
    """The routes of matching pools, for the partner that owns the drive and for admins."""
    router = APIRouter()
    _add_collection(router, pools)

    @router.post(
        "/v1/matching-pools/{pool}/end",
        response_model=PoolView,
        responses=documented(NotFound, NotYourDrive),
    )
    async def end_matching_pool(pool: PoolRef, caller: CallerDep) -> dict[str, Any]:
        """End a matching pool early.

        Gifts captured from now on are not matched. What it gave stays given. A pool that has ended stays as
        it is.
        """
        caller.require("drives")
        return await pools.end(pool, caller)

    return router


def _add_collection(router: APIRouter, pools: MatchingPools) -> None:
    @router.post(
        "/v1/drives/{drive}/matching-pools",
        status_code=201,
        response_model=PoolView,
        responses=documented(NotFound, NotYourDrive, TooManyPools, Invalid, KeyReused),
    )
    async def make_matching_pool(
        drive: DriveRef, request: Request, body: PoolRequest, caller: CallerDep, key: OptionalKey
    ) -> Response:
        """Create a matching pool.

        A sponsor adds `ratio` of each gift, up to `per_gift_cap` a gift and `cap` in all; with `creator`, of
        the gifts credited to that creator. Pools of a drive give in the order of their creation, each its own
        share. Gifts that count already are not matched. A refund or dispute returns its share to the pool,
        for later gifts.
        """
        caller.require("drives")
        return keyed_response(await pools.make(drive, NewPool(body, caller, key, await request.body())))

    @router.get(
        "/v1/drives/{drive}/matching-pools",
        response_model=PoolPage,
        responses=documented(NotFound, NotYourDrive),
    )
    async def list_matching_pools(
        drive: DriveRef, caller: CallerDep, after: After = None, limit: Limit = 25
    ) -> dict[str, Any]:
        """List a drive's matching pools, in the order in which they give."""
        caller.require("drives")
        return await pools.page(drive, caller, int(after or 0), limit)
