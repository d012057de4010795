"""Changes to drives, creators and pledges, each one transaction, answered after its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backbone import idempotency, ids
from backbone.caller import Caller
from backbone.clock import Clock
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.crash import crash_point
from backbone.database import Database
from backbone.idempotency import Key, Stored
from backbone.outbox import announce
from backbone.problems import Forbidden, Invalid, NotFound
from services.pledges.domain import (
    DriveMove,
    Secrets,
    SlugTaken,
    check_cancels,
    check_changes,
    move,
)
from services.pledges.tables import CREATORS, DRIVES, PLEDGES
from services.pledges.views import (
    as_bytes,
    creator_changed,
    creator_json,
    drive_changed,
    drive_json,
    pledge_changed,
    pledge_json,
)
from services.pledges.wishes import CreatorWish, DriveChange, DriveWish, changed_wish

_Act = Callable[[AsyncSession], Awaitable[bytes]]
_Admit = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Once:
    """A request's idempotency key, if it has one, and the hash of its body."""

    key: str | None
    body_hash: str


@dataclass(frozen=True, slots=True)
class Made:
    """The body of a 201, and whether it was given before."""

    reply: bytes
    again: bool


class Drives:
    """Makes drives and creators and moves drives."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def make_drive(self, wish: DriveWish, who: Caller, once: Once) -> Made:
        """A new drive, in draft, owned by the caller's partner. Raises SlugTaken, Forbidden, KeyReused."""
        if who.mode == "test" and not wish.test:
            raise Forbidden("A test key makes test drives only.")

        async def act(session: AsyncSession) -> bytes:
            if await _find_drive(session, wish.slug) is not None:
                raise SlugTaken("Another drive has it.")
            row = await _inserted(session, DRIVES, self._drive_row(wish, who.partner))
            await announce(session, [drive_changed(row)])
            return as_bytes(drive_json(row))

        return await self._once(f"{who.partner}:drives", once, act)

    async def move_drive(self, ref: str, what: DriveMove, who: Caller) -> dict[str, Any]:
        """Open, pause, resume or close a drive; a repeat changes nothing.

        Raises NotFound, Forbidden, NotYourDrive, IllegalMove.
        """
        async with self._database.transaction() as session:
            row = await _drive_for(session, ref, who)
            after = move(DriveState(row.state), what)
            if after == row.state:
                return drive_json(row)
            moved = await session.execute(
                update(DRIVES)
                .where(DRIVES.c.id == row.id)
                .values(state=after.value, version=DRIVES.c.version + 1, changed_at=self._clock.now())
                .returning(*DRIVES.c)
            )
            row = moved.one()
            await announce(session, [drive_changed(row)])
        return drive_json(row)

    async def change_drive(self, ref: str, change: DriveChange, who: Caller) -> dict[str, Any]:
        """Change a drive's fields, as far as its state allows; what is so already changes nothing.

        Raises NotFound, Forbidden, NotYourDrive, Invalid, FieldFixed, SlugTaken.
        """
        try:
            return await self._try_to_change(ref, change, who)
        except IntegrityError:
            raise SlugTaken("Another drive has it.") from None  # taken a moment ago by another process

    async def _try_to_change(self, ref: str, change: DriveChange, who: Caller) -> dict[str, Any]:
        async with self._database.transaction() as session:
            row = await _drive_for(session, ref, who)
            wish = changed_wish(drive_json(row), change)
            wanted = _wished(wish)
            news = {
                name: wanted[name] for name in change.model_fields_set if wanted[name] != getattr(row, name)
            }
            if not news:
                return drive_json(row)
            check_changes(DriveState(row.state), news)
            if who.mode == "test" and not wish.test:
                raise Forbidden("A test key works on test drives only.")
            if "slug" in news and await _find_drive(session, wish.slug) is not None:
                raise SlugTaken("Another drive has it.")
            changed = await session.execute(
                update(DRIVES)
                .where(DRIVES.c.id == row.id)
                .values(news | {"version": DRIVES.c.version + 1, "changed_at": self._clock.now()})
                .returning(*DRIVES.c)
            )
            row = changed.one()
            await announce(session, [drive_changed(row)])
        return drive_json(row)

    async def add_creator(self, ref: str, wish: CreatorWish, who: Caller, once: Once) -> Made:
        """A new creator of a drive.

        Raises NotFound, SlugTaken, Forbidden, NotYourDrive, Invalid, KeyReused.
        """

        async def act(session: AsyncSession) -> bytes:
            drive = await _drive_for(session, ref, who)
            goal = None if wish.goal is None else wish.goal.money()
            if goal is not None and goal.currency != drive.currency:
                wrong = {"pointer": "/goal/currency", "detail": f"this drive takes {drive.currency}"}
                raise Invalid("Some fields do not fit.", errors=[wrong])
            taken = select(CREATORS.c.id).where(CREATORS.c.drive_id == drive.id, CREATORS.c.slug == wish.slug)
            if (await session.execute(taken)).first() is not None:
                raise SlugTaken("Another creator of this drive has it.")
            row = await _inserted(session, CREATORS, self._creator_row(drive.id, wish))
            await announce(session, [creator_changed(row)])
            return as_bytes(creator_json(row, drive.currency))

        async def admit(session: AsyncSession) -> None:
            await _drive_for(session, ref, who)

        return await self._once(f"{who.partner}:creators:{ref}", once, act, admit)

    async def _once(self, scope: str, once: Once, act: _Act, admit: _Admit | None = None) -> Made:
        """Do `act` in a transaction, or give the answer that its key got before.

        `admit` raises where the caller may not have that answer either: a key that was given out later,
        with fewer rights, shares its partner's idempotency keys.
        """
        try:
            return await self._try_once(scope, once, act, admit)
        except IntegrityError:
            # Another process was faster with the same key or slug: now it can be seen.
            return await self._try_once(scope, once, act, admit)

    async def _try_once(self, scope: str, once: Once, act: _Act, admit: _Admit | None) -> Made:
        async with self._database.transaction() as session:
            if admit is not None:
                await admit(session)
            if once.key is None:
                return Made(await act(session), again=False)
            key = Key(scope, once.key)
            known = (await idempotency.recall(session, [key])).get(key)
            if known is not None:
                return Made(known.replay(once.body_hash)[1], again=True)
            reply = await act(session)
            await idempotency.remember(session, [(key, Stored(once.body_hash, 201, reply))])
            return Made(reply, again=False)

    def _drive_row(self, wish: DriveWish, partner: str) -> dict[str, Any]:
        now = self._clock.now()
        return _wished(wish) | {
            "id": ids.new("drv"),
            "partner": partner,
            "state": DriveState.DRAFT.value,
            "version": 1,
            "created_at": now,
            "changed_at": now,
        }

    def _creator_row(self, drive_id: str, wish: CreatorWish) -> dict[str, Any]:
        return {
            "id": ids.new("crt"),
            "drive_id": drive_id,
            "slug": wish.slug,
            "name": wish.name,
            "channel_url": wish.channel_url,
            "team": wish.team,
            "goal": None if wish.goal is None else wish.goal.money().minor_units,
            "version": 1,
            "created_at": self._clock.now(),
        }


class Pledges:
    """Changes pledges that are made; making them is `intake`'s."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets

    async def cancel(self, pledge_id: str, who: Caller) -> dict[str, Any]:
        """Take back a promise that is open and unpaid; a repeat changes nothing. Raises NotFound, NotOpen.

        Money that is on its way all the same will count, and make the pledge paid.
        """
        async with self._database.transaction() as session:
            found = select(PLEDGES).where(PLEDGES.c.id == pledge_id).with_for_update()
            row = (await session.execute(found)).first()
            if row is None or row.partner != who.partner:
                raise NotFound("No such pledge.")
            if who.mode == "test" and not row.test:
                raise Forbidden("A test key works on test drives only.")
            if check_cancels(PledgeStatus(row.status)):
                event = pledge_changed(row, PledgeStatus.CANCELLED)
                cancelled = await session.execute(
                    update(PLEDGES)
                    .where(PLEDGES.c.id == row.id)
                    .values(status=str(event.status), version=event.version)
                    .returning(*PLEDGES.c)
                )
                row = cancelled.one()
                await announce(session, [event])
        crash_point("pledges.cancel.after_commit")
        return pledge_json(row, self._secrets.token(row.id)) | {"checkout": None, "queue": None}


def _wished(wish: DriveWish) -> dict[str, Any]:
    """The columns of a drive that its wish decides."""
    return wish.model_dump(mode="json", exclude={"goal", "starts_at", "ends_at"}) | {
        "goal": wish.goal.money().minor_units,
        "starts_at": wish.starts_at,
        "ends_at": wish.ends_at,
    }


async def _inserted(session: AsyncSession, table: Any, row: dict[str, Any]) -> Row[Any]:
    return (await session.execute(insert(table).values(row).returning(*table.c))).one()


async def _find_drive(session: AsyncSession, ref: str) -> Row[Any] | None:
    """The drive called `ref` (slug or id), locked."""
    columns = DRIVES.c
    named = select(DRIVES).where(or_(columns.slug == ref, columns.id == ref)).with_for_update()
    return (await session.execute(named)).first()


async def _drive_for(session: AsyncSession, ref: str, who: Caller) -> Row[Any]:
    """The drive called `ref`, locked, for one who may change it. Raises NotFound, Forbidden, NotYourDrive."""
    row = await _find_drive(session, ref)
    if row is None:
        raise NotFound("No such drive.")
    if who.mode == "test" and not row.test:
        raise Forbidden("A test key works on test drives only.")
    who.require_owned(row.partner)
    return row
