"""Commands on drives, creators and pledges: one transaction each, answered after the commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from backbone import ids
from backbone.clock import Clock
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Forbidden, Invalid, NotFound
from backbone.idempotency import Authorize, Create, KeyedReply, ScopedKey, run_once
from backbone.messaging.outbox import announce
from services.pledges.domain import (
    DriveTransition,
    PledgeSecrets,
    SlugTaken,
    check_cancellable,
    check_changes,
    check_currencies,
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


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request's idempotency key, if it has one, and the hash of its body."""

    key: str | None
    body_hash: str

    def scoped(self, scope: str) -> ScopedKey | None:
        """The key within `scope`."""
        return None if self.key is None else ScopedKey(scope, self.key)


class DriveCommands:
    """Creates and changes drives, and adds creators."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def make_drive(self, request: DriveRequest, caller: Caller, keyed: KeyedRequest) -> KeyedReply:
        """Create a drive in draft, owned by the caller's partner. Raises SlugTaken, Forbidden, KeyReused."""
        if caller.mode == "test" and not request.test:
            raise Forbidden("A test key can create test drives only.")

        async def create(session: Transaction) -> bytes:
            if await _lock_drive(session, request.slug) is not None:
                raise SlugTaken("Another drive has it.")
            row = await _insert_row(session, DRIVES, self._drive_row(request, caller.partner))
            await announce(session, [drive_changed(row)])
            return json_bytes(drive_json(row))

        return await self._create_once(f"{caller.partner}:drives", keyed, create)

    async def transition_drive(self, ref: str, transition: DriveTransition, caller: Caller) -> dict[str, Any]:
        """Open, pause, resume or close a drive; a repeat changes nothing.

        Raises NotFound, Forbidden, NotYourDrive, IllegalTransition.
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
        """Change fields of a drive; a field that has the value already is not a change.

        Raises NotFound, Forbidden, NotYourDrive, Invalid, FieldImmutable, SlugTaken.
        """
        try:
            return await self._try_change(ref, change, caller)
        except IntegrityError:
            raise SlugTaken("Another drive has it.") from None  # by another process, since we looked

    async def _try_change(self, ref: str, change: DriveChange, caller: Caller) -> dict[str, Any]:
        async with self._database.transaction() as session:
            row = await _lock_drive_for_change(session, ref, caller)
            request = changed_request(drive_json(row), change)
            requested = _drive_columns(request)
            changes = {
                name: requested[name]
                for name in change.model_fields_set
                if requested[name] != _stored(row, name)
            }
            if not changes:
                return drive_json(row)
            check_changes(DriveState(row.state), changes)
            check_currencies(DriveState(row.state), row.currencies or (), request.currencies)
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
    ) -> KeyedReply:
        """Add a creator to a drive.

        Raises NotFound, SlugTaken, Forbidden, NotYourDrive, Invalid, KeyReused.
        """

        async def create(session: Transaction) -> bytes:
            drive = await _lock_drive_for_change(session, ref, caller)
            goal = None if request.goal is None else request.goal.money()
            if goal is not None and goal.currency != drive.currency:
                wrong = {"pointer": "/goal/currency", "detail": f"this drive takes {drive.currency}"}
                raise Invalid("Some fields are invalid.", errors=[wrong])
            taken = select(CREATORS.c.id).where(
                CREATORS.c.drive_id == drive.id, CREATORS.c.slug == request.slug
            )
            if (await session.execute(taken)).first() is not None:
                raise SlugTaken("Another creator of this drive has it.")
            row = await _insert_row(session, CREATORS, self._creator_row(drive.id, request))
            await announce(session, [creator_changed(row)])
            return json_bytes(creator_json(row, drive.currency))

        async def authorize(session: Transaction) -> None:
            await _lock_drive_for_change(session, ref, caller)

        return await self._create_once(f"{caller.partner}:creators:{ref}", keyed, create, authorize)

    async def _create_once(
        self, scope: str, keyed: KeyedRequest, create: Create, authorize: Authorize | None = None
    ) -> KeyedReply:
        key = keyed.scoped(scope)
        try:
            return await run_once(self._database, key, keyed.body_hash, create, authorize=authorize)
        except IntegrityError:
            # Another process has just taken the slug. On the second attempt the slug is found taken.
            return await run_once(self._database, key, keyed.body_hash, create, authorize=authorize)

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
    """Changes existing pledges; `intake` creates them."""

    def __init__(self, database: Database, secrets: PledgeSecrets) -> None:
        self._database = database
        self._secrets = secrets

    async def cancel(self, pledge_id: str, caller: Caller) -> dict[str, Any]:
        """Cancel a pledge that is open and unpaid; a repeat changes nothing. Raises NotFound, PledgeNotOpen.

        A payment already on its way still counts and makes the pledge paid.
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
    """The columns of a drive that the request determines."""
    return request.model_dump(mode="json", exclude={"goal", "starts_at", "ends_at"}) | {
        "goal": request.goal.money().minor_units,
        "starts_at": request.starts_at,
        "ends_at": request.ends_at,
    }


def _stored(row: Row[Any], name: str) -> Any:
    """A column of a drive; versions before exchange rates stored no currencies."""
    value = getattr(row, name)
    return [] if value is None and name == "currencies" else value


async def _insert_row(session: Transaction, table: Any, row: dict[str, Any]) -> Row[Any]:
    return (await session.execute(insert(table).values(row).returning(*table.c))).one()


async def _lock_drive(session: Transaction, ref: str) -> Row[Any] | None:
    """The drive with this slug or id, locked."""
    columns = DRIVES.c
    named = select(DRIVES).where(or_(columns.slug == ref, columns.id == ref)).with_for_update()
    return (await session.execute(named)).first()


async def _lock_drive_for_change(session: Transaction, ref: str, caller: Caller) -> Row[Any]:
    """The drive with this slug or id, locked. Raises NotFound, Forbidden, NotYourDrive."""
    row = await _lock_drive(session, ref)
    if row is None:
        raise NotFound("No such drive.")
    if caller.mode == "test" and not row.test:
        raise Forbidden("A test key works on test drives only.")
    caller.require_owned(row.partner)
    return row
