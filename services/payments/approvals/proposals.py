"""Proposals of one kind: recorded by one key, decided by another, listed for the drive's partner."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Table

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Conflict
from backbone.idempotency import KeyedReply, ScopedKey, hash_body, run_once
from services.payments.approvals import decisions
from services.payments.approvals.decisions import Decision, Wanted
from services.payments.approvals.states import Action, Status
from services.payments.drive_lookup import DriveLookup, KnownDrive


class DriveNotOpened(Conflict):
    slug, title = "drive-not-opened", "The drive was not opened yet"


AsJson = Callable[[Row[Any], list[dict[str, Any]]], dict[str, Any]]
"""A proposal and its history, as the API shows them."""

Effect = Callable[[Transaction, Row[Any], Status, Decision], Awaitable[None]]
"""What else a decision changes, in its transaction: the locked row as it was, and its status from now on.

It may raise a `Problem`; then nothing is stored.
"""


async def no_effect(_session: Transaction, _row: Row[Any], _after: Status, _decision: Decision) -> None:
    """The `Effect` of proposals that are only counted."""


Check = Callable[[Transaction], Awaitable[None]]
"""Raises where something cannot be recorded; not asked again when the request is repeated."""


async def no_check(_session: Transaction) -> None:
    """The `Check` of what can always be recorded."""


@dataclass(frozen=True, slots=True)
class ProposalKind:
    """A kind of proposals: its table, its route's name, how it is shown, and what its decisions change."""

    table: Table
    route: str
    as_json: AsJson
    effect: Effect


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request's idempotency key, if it has one, and its body as it was sent."""

    key: str | None
    body: bytes


class Proposals:
    """Stores proposals of one kind, and the decisions about them."""

    def __init__(self, database: Database, drives: DriveLookup, clock: Clock, kind: ProposalKind) -> None:
        self._database = database
        self._drives = drives
        self._clock = clock
        self._kind = kind

    async def drive(self, ref: str, caller: Caller) -> KnownDrive:
        """The drive that something is recorded for.

        Raises `DriveNotOpened` for a draft, and what `DriveLookup.find_owned` raises. A closed drive takes
        what arrived late.
        """
        drive = await self._drives.find_owned(ref, caller)
        if drive.state == "draft":
            raise DriveNotOpened("Open the drive first.")
        return drive

    async def record(
        self,
        drive: KnownDrive,
        row: Mapping[str, Any],
        caller: Caller,
        keyed: KeyedRequest,
        check: Check = no_check,
    ) -> KeyedReply:
        """Store a proposal with the columns `row`. Repeating the key returns the first reply.

        Raises what `check` and a reused key raise.
        """
        own = {"drive_id": drive.id, "partner": drive.partner, "test": drive.test, **row}

        async def create(session: Transaction) -> bytes:
            await check(session)
            await decisions.store(session, self._kind.table, own, caller)
            return json.dumps(await self._shown(session, own["id"]), ensure_ascii=False).encode()

        scope = f"{caller.partner}:{self._kind.route}"
        key = None if keyed.key is None else ScopedKey(scope, keyed.key)
        return await run_once(self._database, key, hash_body(drive.id.encode() + b"\n" + keyed.body), create)

    async def decide(
        self,
        proposal_id: str,
        action: Action,
        caller: Caller,
        reason: str | None,
        seen: Status | None = None,
    ) -> dict[str, Any]:
        """Take a decision; the proposal after it. A repeated decision changes nothing.

        One that the caller takes about another status than `seen` is refused, under the proposal's lock.
        The decision and its effect are stored in one transaction. Raises `NotFound`, `SecondApproverNeeded`,
        `NotDecidable`, and what `DriveLookup.find_owned` and the effect raise.
        """
        table = self._kind.table
        async with self._database.reading() as session:
            found = await decisions.find(session, table, proposal_id)
        await self._drives.find_owned(found.drive_id, caller)
        decision = Decision(action, caller, self._clock.now(), reason, seen)
        async with self._database.transaction() as session:
            row = await decisions.find(session, table, proposal_id, lock=True)
            after = await decisions.decide(session, table, row, decision)
            if after is not Status(row.status):
                await self._kind.effect(session, row, after, decision)
                crash_point("payments.approvals.before_commit")
            shown = await self._shown(session, proposal_id)
        crash_point("payments.approvals.after_commit")
        return shown

    async def page(self, drive: str | None, caller: Caller, wanted: Wanted) -> dict[str, Any]:
        """A page, newest first (`decisions.page`). Raises what `DriveLookup.find_owned` raises."""
        if drive is not None:
            wanted = wanted._replace(drive_id=(await self._drives.find_owned(drive, caller)).id)
        async with self._database.reading() as session:
            rows, following = await decisions.page(session, self._kind.table, caller, wanted)
            histories = await decisions.histories(session, [row.id for row in rows])
        data = [self._kind.as_json(row, histories.get(row.id, [])) for row in rows]
        return {"data": data, "next": following}

    async def _shown(self, session: Transaction, proposal_id: str) -> dict[str, Any]:
        row = await decisions.find(session, self._kind.table, proposal_id)
        return self._kind.as_json(row, (await decisions.histories(session, [proposal_id]))[proposal_id])
