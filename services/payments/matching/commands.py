"""Making, listing and ending matching pools."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, select, update

from backbone import ids
from backbone.clock import Clock
from backbone.database.columns import Utc
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Conflict, Invalid, NotFound
from backbone.idempotency import KeyedReply, ScopedKey, hash_body, run_once
from backbone.messaging.outbox import announce
from backbone.money import Money
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.matching.allocation import announcement
from services.payments.matching.domain import Pool, state_of
from services.payments.matching.ratio import parse_ratio
from services.payments.matching.requests import PoolRequest
from services.payments.matching.tables import POOL_COLUMNS, POOLS
from services.payments.matching.views import SHOWN_COLUMNS, pool_view, view_of
from services.payments.tables import DRIVES

MOST_POOLS: Final = 50
"""Pools of a drive, ended ones included: each new gift looks at all of them."""


class TooManyPools(Conflict):
    slug, title = "too-many-matching-pools", "The drive has as many matching pools as it may have"


@dataclass(frozen=True, slots=True)
class NewPool:
    """A request for a pool of a drive, with its idempotency key and the body as it was sent."""

    request: PoolRequest
    caller: Caller
    key: str | None
    body: bytes


class MatchingPools:
    """The matching pools of drives. What they give is decided in `allocation.match_gifts`."""

    def __init__(
        self, database: Database, drives: DriveLookup, creators: CreatorLookup, clock: Clock
    ) -> None:
        self._database = database
        self._drives = drives
        self._creators = creators
        self._clock = clock

    async def make(self, ref: str, new: NewPool) -> KeyedReply:
        """Make a pool in a drive that the caller owns, or return the reply of its idempotency key.

        Raises what `DriveLookup.find_owned` raises, `Invalid`, `TooManyPools`, and what a reused key raises.
        """
        drive = await self._drives.find_owned(ref, new.caller)
        creator = await self._creators.find(drive.id, new.request.creator)
        pool = self._pool(drive, new.request, creator)

        async def create(session: Transaction) -> bytes:
            made_at = self._clock.now()
            stored = await _insert(session, pool, new.caller.key_id, made_at)
            return json.dumps(view_of(stored, made_at, made_at)).encode()

        scoped = None if new.key is None else ScopedKey(f"{new.caller.partner}:matching-pools", new.key)
        return await run_once(self._database, scoped, hash_body(drive.id.encode() + b"\n" + new.body), create)

    def _pool(self, drive: KnownDrive, request: PoolRequest, creator_id: str | None) -> Pool:
        """The pool that is asked for. Raises `Invalid`."""
        now = self._clock.now()
        starts_at = request.starts_at or whole_second(now)
        if request.ends_at is not None and request.ends_at <= max(now, starts_at):
            raise _invalid("/ends_at", "It must be in the future, and after the start.")
        per_gift_cap = None
        if request.per_gift_cap is not None:
            per_gift_cap = _in_currency(request.per_gift_cap.money(), drive, "per_gift_cap")
        cap = _in_currency(request.cap.money(), drive, "cap")
        return Pool(
            0, ids.new("mch"), drive.id, 1, request.sponsor, drive.currency, cap, 0,
            parse_ratio(request.ratio), per_gift_cap, creator_id, starts_at, request.ends_at, None,
        )  # fmt: skip

    async def page(self, ref: str, caller: Caller, after: int, limit: int) -> dict[str, Any]:
        """A page of the pools of a drive that the caller owns, in the order in which they give."""
        drive = await self._drives.find_owned(ref, caller)
        wanted = {"of_drive": drive.id, "after": after, "most": limit + 1}
        async with self._database.reading() as session:
            rows = (await session.execute(_PAGE, wanted)).all()
        now, shown = self._clock.now(), rows[:limit]
        more = len(rows) > limit
        return {
            "data": [pool_view(row, now) for row in shown],
            "next": str(shown[-1].number) if more else None,
        }

    async def end(self, pool_id: str, caller: Caller) -> dict[str, Any]:
        """End a pool of a drive that the caller owns: no gift captured from now on is matched.

        What it gave stays given. A pool that has ended stays as it is. Raises `NotFound` and what
        `DriveLookup.find_owned` raises.
        """
        async with self._database.reading() as session:
            drive_id = (await session.execute(_DRIVE_OF, {"of_id": pool_id})).scalar_one_or_none()
        if drive_id is None:
            raise NotFound("No such matching pool.")
        await self._drives.find_owned(drive_id, caller)
        async with self._database.transaction() as session:
            return await self._end(session, pool_id, caller.key_id)

    async def _end(self, session: Transaction, pool_id: str, key_id: str) -> dict[str, Any]:
        row: tuple[Any, ...] = tuple((await session.execute(_LOCK, {"of_id": pool_id})).one())
        pool, made_at, now = Pool(*row[:-1]), row[-1], self._clock.now()
        if state_of(pool, now) != "ended":
            pool = replace(pool, ended_at=whole_second(now), version=pool.version + 1)
            values = {
                "of_id": pool.id, "to_ended_at": pool.ended_at, "to_version": pool.version, "to_by": key_id
            }  # fmt: skip
            await session.execute(_END, values)
            await announce(session, [announcement(pool, now)])
        return view_of(pool, made_at, now)


def whole_second(moment: datetime) -> datetime:
    """The second that `moment` is in: the processor reports captures in whole seconds."""
    return moment.replace(microsecond=0)


async def _insert(session: Transaction, pool: Pool, key_id: str, made_at: datetime) -> Pool:
    """Store and announce a new pool. Raises `TooManyPools`."""
    await session.execute(_LOCK_DRIVE, {"of_drive": pool.drive_id})
    known = (await session.execute(_COUNT, {"of_drive": pool.drive_id})).scalar_one()
    if known >= MOST_POOLS:
        raise TooManyPools(f"A drive has {MOST_POOLS} pools at most, ended ones included.")
    values = {column.name: getattr(pool, column.name) for column in POOL_COLUMNS if column.name != "number"}
    values |= {"made_by": key_id, "ended_by": None, "made_at": made_at}
    await session.execute(_INSERT, [values])
    await announce(session, [announcement(pool, made_at)])
    return pool


def _in_currency(money: Money, drive: KnownDrive, name: str) -> int:
    if money.currency != drive.currency:
        raise _invalid(f"/{name}/currency", f"The drive's currency is {drive.currency}.")
    return money.minor_units


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[{"pointer": pointer, "detail": detail}])


_OF_DRIVE: Final = POOLS.c.drive_id == bindparam("of_drive")
_OF_ID: Final = POOLS.c.id == bindparam("of_id")
_LOCK_DRIVE: Final = select(DRIVES.c.id).where(DRIVES.c.id == bindparam("of_drive")).with_for_update()
"""Requests for pools of a drive wait for each other, so that none exceeds `MOST_POOLS`."""
_COUNT: Final = select(func.count()).select_from(POOLS).where(_OF_DRIVE)
_INSERT: Final = insert(POOLS)
_PAGE: Final = (
    select(*SHOWN_COLUMNS)
    .where(_OF_DRIVE, POOLS.c.number > bindparam("after"))
    .order_by(POOLS.c.number)
    .limit(bindparam("most"))
)
_DRIVE_OF: Final = select(POOLS.c.drive_id).where(_OF_ID)
_LOCK: Final = select(*SHOWN_COLUMNS).where(_OF_ID).with_for_update()
_END: Final = (
    update(POOLS)
    .where(_OF_ID)
    .values(
        ended_at=bindparam("to_ended_at", type_=Utc),
        version=bindparam("to_version"),
        ended_by=bindparam("to_by"),
    )
)
