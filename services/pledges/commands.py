"""Changes to drives, creators and pledges, each one transaction, answered after its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backbone import idempotency, ids
from backbone.clock import Clock
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.http.caller import Caller
from backbone.http.problems import Forbidden, Invalid, NotFound
from backbone.idempotency import Key, StoredReply
from backbone.messaging.outbox import announce
from services.pledges.domain import (
    DriveTransition,
    PledgeSecrets,
    SlugTaken,
    check_cancellable,
    check_changes,
    next_state,
)
from services.pledges.requests import CreatorRequest, DriveChange, DriveRequest, changed_request
from services.pledges.tables import CREATORS, DRIVES, PLEDGES
from services.pledges.views import (
    creator_changed,
    creator_json,
    drive_changed,
    drive_json,
    json_bytes,
    pledge_changed,
    pledge_json,
)

_Create = Callable[[AsyncSession], Awaitable[bytes]]
_Authorize = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request's idempotency key, if it has one, and the hash of its body."""

    key: str | None
    body_hash: str


@dataclass(frozen=True, slots=True)
class Created:
    """The body of a 201, and whether it was given before."""

    reply: bytes
    replayed: bool


class DriveCommands:
    """Makes drives and creators and moves drives."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def make_drive(self, request: DriveRequest, caller: Caller, keyed: KeyedRequest) -> Created:
        """A new drive, in draft, owned by the caller's partner. Raises SlugTaken, Forbidden, KeyReused."""
        if caller.mode == "test" and not request.test:
            raise Forbidden("A test key makes test drives only.")

        async def create(session: AsyncSession) -> bytes:
            if await _lock_drive(session, request.slug) is not None:
                raise SlugTaken("Another drive has it.")
            row = await _insert_row(session, DRIVES, self._drive_row(request, caller.partner))
            await announce(session, [drive_changed(row)])
            return json_bytes(drive_json(row))

        return await self._create_once(f"{caller.partner}:drives", keyed, create)

    async def transition_drive(self, ref: str, transition: DriveTransition, caller: Caller) -> dict[str, Any]:
        """Open, pause, resume or close a drive; a repeat changes nothing.

        Raises NotFound, Forbidden, NotYourDrive, IllegalMove.
        """
        async with self._database.transaction() as session:
            row = await _lock_drive_for_change(session, ref, caller)
            after = next_state(DriveState(row.state), transition)
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

    async def change_drive(self, ref: str, change: DriveChange, caller: Caller) -> dict[str, Any]:
        """Change a drive's fields, as far as its state allows; what is so already changes nothing.

        Raises NotFound, Forbidden, NotYourDrive, Invalid, FieldFixed, SlugTaken.
        """
        try:
            return await self._try_change(ref, change, caller)
        except IntegrityError:
            raise SlugTaken("Another drive has it.") from None  # taken a moment ago by another process

    async def _try_change(self, ref: str, change: DriveChange, caller: Caller) -> dict[str, Any]:
        async with self._database.transaction() as session:
            row = await _lock_drive_for_change(session, ref, caller)
            request = changed_request(drive_json(row), change)
            requested = _drive_columns(request)
            changes = {
                name: requested[name]
                for name in change.model_fields_set
                if requested[name] != getattr(row, name)
            }
            if not changes:
                return drive_json(row)
            check_changes(DriveState(row.state), changes)
            if caller.mode == "test" and not request.test:
                raise Forbidden("A test key works on test drives only.")
            if "slug" in changes and await _lock_drive(session, request.slug) is not None:
                raise SlugTaken("Another drive has it.")
            changed = await session.execute(
                update(DRIVES)
                .where(DRIVES.c.id == row.id)
                .values(changes | {"version": DRIVES.c.version + 1, "changed_at": self._clock.now()})
                .returning(*DRIVES.c)
            )
            row = changed.one()
            await announce(session, [drive_changed(row)])
        return drive_json(row)

    async def add_creator(
        self, ref: str, request: CreatorRequest, caller: Caller, keyed: KeyedRequest
    ) -> Created:
        """A new creator of a drive.

        Raises NotFound, SlugTaken, Forbidden, NotYourDrive, Invalid, KeyReused.
        """

        async def create(session: AsyncSession) -> bytes:
            drive = await _lock_drive_for_change(session, ref, caller)
            goal = None if request.goal is None else request.goal.money()
            if goal is not None and goal.currency != drive.currency:
                wrong = {"pointer": "/goal/currency", "detail": f"this drive takes {drive.currency}"}
                raise Invalid("Some fields do not fit.", errors=[wrong])
            taken = select(CREATORS.c.id).where(
                CREATORS.c.drive_id == drive.id, CREATORS.c.slug == request.slug
            )
            if (await session.execute(taken)).first() is not None:
                raise SlugTaken("Another creator of this drive has it.")
            row = await _insert_row(session, CREATORS, self._creator_row(drive.id, request))
            await announce(session, [creator_changed(row)])
            return json_bytes(creator_json(row, drive.currency))

        async def authorize(session: AsyncSession) -> None:
            await _lock_drive_for_change(session, ref, caller)

        return await self._create_once(f"{caller.partner}:creators:{ref}", keyed, create, authorize)

    async def _create_once(
        self, scope: str, keyed: KeyedRequest, create: _Create, authorize: _Authorize | None = None
    ) -> Created:
        """Do `create` in a transaction, or give the answer that its key got before.

        `authorize` raises where the caller may not have that answer either: a key that was given out later,
        with fewer rights, shares its partner's idempotency keys.
        """
        try:
            return await self._try_create_once(scope, keyed, create, authorize)
        except IntegrityError:
            # Another process was faster with the same key or slug: now it can be seen.
            return await self._try_create_once(scope, keyed, create, authorize)

    async def _try_create_once(
        self, scope: str, keyed: KeyedRequest, create: _Create, authorize: _Authorize | None
    ) -> Created:
        async with self._database.transaction() as session:
            if authorize is not None:
                await authorize(session)
            if keyed.key is None:
                return Created(await create(session), replayed=False)
            key = Key(scope, keyed.key)
            known = (await idempotency.find_replies(session, [key])).get(key)
            if known is not None:
                return Created(known.replay(keyed.body_hash)[1], replayed=True)
            reply = await create(session)
            await idempotency.record_new(session, [(key, StoredReply(keyed.body_hash, 201, reply))])
            return Created(reply, replayed=False)

    def _drive_row(self, request: DriveRequest, partner: str) -> dict[str, Any]:
        now = self._clock.now()
        return _drive_columns(request) | {
            "id": ids.new("drv"),
            "partner": partner,
            "state": DriveState.DRAFT.value,
            "version": 1,
            "created_at": now,
            "changed_at": now,
        }

    def _creator_row(self, drive_id: str, request: CreatorRequest) -> dict[str, Any]:
        return {
            "id": ids.new("crt"),
            "drive_id": drive_id,
            "slug": request.slug,
            "name": request.name,
            "channel_url": request.channel_url,
            "team": request.team,
            "goal": None if request.goal is None else request.goal.money().minor_units,
            "version": 1,
            "created_at": self._clock.now(),
        }


class PledgeCommands:
    """Changes pledges that are made; making them is `intake`'s."""

    def __init__(self, database: Database, secrets: PledgeSecrets) -> None:
        self._database = database
        self._secrets = secrets

    async def cancel(self, pledge_id: str, caller: Caller) -> dict[str, Any]:
        """Take back a promise that is open and unpaid; a repeat changes nothing. Raises NotFound, NotOpen.

        Money that is on its way all the same will count, and make the pledge paid.
        """
        async with self._database.transaction() as session:
            statement = select(PLEDGES).where(PLEDGES.c.id == pledge_id).with_for_update()
            row = (await session.execute(statement)).first()
            if row is None or row.partner != caller.partner:
                raise NotFound("No such pledge.")
            if caller.mode == "test" and not row.test:
                raise Forbidden("A test key works on test drives only.")
            if check_cancellable(PledgeStatus(row.status)):
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


def _drive_columns(request: DriveRequest) -> dict[str, Any]:
    """The columns of a drive that its wish decides."""
    return request.model_dump(mode="json", exclude={"goal", "starts_at", "ends_at"}) | {
        "goal": request.goal.money().minor_units,
        "starts_at": request.starts_at,
        "ends_at": request.ends_at,
    }


async def _insert_row(session: AsyncSession, table: Any, row: dict[str, Any]) -> Row[Any]:
    return (await session.execute(insert(table).values(row).returning(*table.c))).one()


async def _lock_drive(session: AsyncSession, ref: str) -> Row[Any] | None:
    """The drive called `ref` (slug or id), locked."""
    columns = DRIVES.c
    named = select(DRIVES).where(or_(columns.slug == ref, columns.id == ref)).with_for_update()
    return (await session.execute(named)).first()


async def _lock_drive_for_change(session: AsyncSession, ref: str, caller: Caller) -> Row[Any]:
    """The drive called `ref`, locked, for one who may change it. Raises NotFound, Forbidden, NotYourDrive."""
    row = await _lock_drive(session, ref)
    if row is None:
        raise NotFound("No such drive.")
    if caller.mode == "test" and not row.test:
        raise Forbidden("A test key works on test drives only.")
    caller.require_owned(row.partner)
    return row
