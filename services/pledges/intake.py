"""The hot door: pledges that arrive together are promised together, in one transaction.

A batch costs the same eight statements whether it holds one pledge or a hundred. A wish that does
not fit is answered with its own problem and stores nothing; its neighbours are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from prometheus_client import Counter
from sqlalchemy import Connection, Insert, Row, bindparam, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backbone import idempotency, ids
from backbone.caller import Caller
from backbone.clock import Clock, rfc3339
from backbone.contracts.pledges import PledgeMade, PledgeStatus, Source
from backbone.crash import crash_point
from backbone.database import Database
from backbone.group_commit import GroupCommit
from backbone.idempotency import Key, Stored
from backbone.ids import CreatorId, DonorId, DriveId, PledgeId
from backbone.money import Money, as_json
from backbone.outbox import announce_in
from backbone.pairs import PairLookup
from backbone.problems import Forbidden, NotFound, Problem
from services.pledges.approval import displayed, normal
from services.pledges.domain import (
    Secrets,
    check_admits,
    check_amount,
    check_charges,
    check_takes_pledges,
    unknown_creator,
)
from services.pledges.tables import CREATORS, DONORS, DRIVES, PLEDGES, WORDS
from services.pledges.views import as_bytes
from services.pledges.wishes import PledgeWish

_PLEDGES = Counter("ataa_pledges_total", "Pledges asked for, by what became of them.", ["outcome"])
_MADE, _REPLAYED, _REFUSED = (_PLEDGES.labels(outcome) for outcome in ("made", "replayed", "refused"))

_KNOWN_CREATORS_AT_MOST: Final = 10_000


# Made once: putting a statement together costs more than running it.
_DRIVE_CALLED: Final = (
    select(
        DRIVES.c.id,
        DRIVES.c.slug,
        DRIVES.c.state,
        DRIVES.c.currency,
        DRIVES.c.test,
        DRIVES.c.partner,
        DRIVES.c.partners,
    )
    .where(or_(DRIVES.c.slug == bindparam("ref"), DRIVES.c.id == bindparam("ref")))
    .with_for_update(read=True)
)
_CREATORS: Final = select(CREATORS.c.id, CREATORS.c.slug, CREATORS.c.drive_id)
_CREATORS_BY_SLUG: Final = PairLookup(_CREATORS, CREATORS.c.drive_id, CREATORS.c.slug)
_CREATORS_BY_ID: Final = PairLookup(_CREATORS, CREATORS.c.drive_id, CREATORS.c.id)
_DONORS_KNOWN: Final = PairLookup(select(DONORS), DONORS.c.partner, DONORS.c.address_mac)
_NEW_DONORS: Final[Mapping[str, Insert]] = {
    "sqlite": sqlite.insert(DONORS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(DONORS).on_conflict_do_nothing(),
}
_NEW_PLEDGES: Final = insert(PLEDGES)
_NEW_WORDS: Final = insert(WORDS)


@dataclass(frozen=True, slots=True)
class MakePledge:
    """Promise `wish` to the drive called `drive` (slug or id); `body_hash` tells bodies apart."""

    drive: str
    wish: PledgeWish
    who: Caller
    key: str
    body_hash: str


class Promised(NamedTuple):
    """The reply to a pledge, and whether it was given before."""

    reply: bytes
    again: bool


class _Call(NamedTuple):
    """A command whose drive is known, and the partner that makes the pledge."""

    command: MakePledge
    drive: Row[Any]
    partner: str
    key: Key
    body_hash: str


class _Promise(NamedTuple):
    """A wish that fits, with all that its rows need."""

    call: _Call
    pledge_id: PledgeId
    creator_id: CreatorId | None
    address_mac: bytes | None
    reply: bytes


_Answer = Promised | Exception


class Intake:
    """Makes pledges; `submit` one at a time, many at once."""

    def __init__(
        self, database: Database, secrets: Secrets, clock: Clock, *, moves_real_money: bool = False
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._clock = clock
        self._moves_real_money = moves_real_money
        self._creators: dict[tuple[str, str], CreatorId] = {}
        self._door: GroupCommit[MakePledge, Promised] = GroupCommit(self._commit)

    async def submit(self, command: MakePledge) -> Promised:
        """The pledge's reply, once it is stored.

        Raises NotFound, Forbidden, PartnerLeftOut, DriveClosed, DrivePaused, RealMoneyOnTestDrive, Invalid,
        AmountTooSmall, AmountTooLarge, KeyReused or Overloaded; then nothing is stored.
        """
        return await self._door.submit(command)

    async def _commit(self, batch: Sequence[MakePledge]) -> Sequence[_Answer]:
        try:
            answers = await self._promise(batch)
        except IntegrityError:
            # Another process took one of the keys a moment earlier: now its answer is there.
            answers = await self._promise(batch)
        crash_point("pledges.intake.after_commit")
        for answer in answers:
            (_REFUSED if isinstance(answer, Exception) else _REPLAYED if answer.again else _MADE).inc()
        return answers

    async def _promise(self, batch: Sequence[MakePledge]) -> list[_Answer]:
        async with self._database.transaction() as session:
            return await session.run_sync(self._promise_in, batch)

    def _promise_in(self, session: Session, batch: Sequence[MakePledge]) -> list[_Answer]:
        """The whole batch in one plain call: an await a statement costs as much as the statement."""
        connection = session.connection()
        drives = _drives(connection, {command.drive for command in batch})
        calls = [_call(command, drives) for command in batch]
        known = [call for call in calls if isinstance(call, _Call)]
        stored = idempotency.recall_in(session, list({call.key for call in known}))
        self._meet_creators(connection, [call for call in known if call.key not in stored])
        now = self._clock.now()
        answers, promises = self._settle(calls, dict(stored), now)
        if promises:
            made = _insert(connection, promises, now)
            replies = [(one.call.key, Stored(one.call.body_hash, 201, one.reply)) for one in promises]
            idempotency.remember_in(session, replies, now)
            announce_in(session, made)
        return answers

    def _settle(
        self, calls: Iterable[_Call | Problem], settled: dict[Key, Stored], now: datetime
    ) -> tuple[list[_Answer], list[_Promise]]:
        """An answer for each call in the order they came, and the promises to be stored.

        The first wish that fits takes its key, so equal keys in a batch end as they would one by one.
        """
        answers: list[_Answer] = []
        promises: list[_Promise] = []
        for call in calls:
            if isinstance(call, Problem):
                answers.append(call)
            elif (earlier := settled.get(call.key)) is not None:
                answers.append(self._replay(earlier, call.body_hash))
            elif isinstance(outcome := self._judge(call, now), Problem):
                answers.append(outcome)
            else:
                promises.append(outcome)
                settled[call.key] = Stored(call.body_hash, 201, outcome.reply)
                answers.append(Promised(self._with_token(outcome.reply, outcome.pledge_id), again=False))
        return answers, promises

    def _replay(self, earlier: Stored, body_hash: str) -> _Answer:
        try:
            _, reply = earlier.replay(body_hash)
        except Problem as reused:
            return reused
        return Promised(self._with_token(reply, json.loads(reply)["id"]), again=True)

    def _with_token(self, reply: bytes, pledge_id: str) -> bytes:
        """Stored replies hold no secret; the token is made anew from the id."""
        return reply[:-1] + f',"token":"{self._secrets.token(pledge_id)}"}}'.encode()

    def _meet_creators(self, connection: Connection, calls: Iterable[_Call]) -> None:
        """Learn the creators named that are not known yet. They never change their slug or drive."""
        wanted = {
            (call.drive.id, name)
            for call in calls
            if (name := call.command.wish.creator) is not None and (call.drive.id, name) not in self._creators
        }
        if not wanted:
            return
        if len(self._creators) > _KNOWN_CREATORS_AT_MOST:
            self._creators.clear()
        named = [pair for pair in wanted if not ids.is_id(pair[1], "crt")]
        for row in (
            *_CREATORS_BY_SLUG.find(connection, named),
            *_CREATORS_BY_ID.find(connection, wanted.difference(named)),
        ):
            self._creators[row.drive_id, row.slug] = self._creators[row.drive_id, row.id] = row.id

    def _judge(self, call: _Call, now: datetime) -> _Promise | Problem:
        """What the wish becomes, as far as rules without I/O can say."""
        command, wish, drive = call.command, call.command.wish, call.drive
        amount = wish.amount.money()
        try:
            if not command.who.admin:
                check_admits(call.partner, drive.partner, drive.partners)
            check_takes_pledges(drive.state)
            check_charges(drive.test, self._moves_real_money)
            check_amount(amount, drive.currency)
        except Problem as problem:
            return problem
        creator_id = None if wish.creator is None else self._creators.get((drive.id, wish.creator))
        if wish.creator is not None and creator_id is None:
            return unknown_creator()
        email = wish.donor.email
        mac = None if email is None else self._secrets.address_mac(call.partner, email)
        pledge_id = PledgeId(ids.new("plg"))
        reply = _reply(pledge_id, drive.id, creator_id, amount, now)
        return _Promise(call, pledge_id, creator_id, mac, reply)


def _insert(connection: Connection, promises: Sequence[_Promise], now: datetime) -> list[PledgeMade]:
    """Write donors, pledges and words; the events that say so."""
    donors = _donors(connection, promises)
    made = [_pledge_made(one, donors, now) for one in promises]
    connection.execute(_NEW_PLEDGES, [_pledge_row(*pair) for pair in zip(promises, made, strict=True)])
    if words := [row for one in promises if (row := _words_row(one)) is not None]:
        connection.execute(_NEW_WORDS, words)
    return made


def _drives(connection: Connection, refs: set[str]) -> dict[str, Any]:
    """The drives called `refs` (mostly it is one), kept from moving until this transaction ends."""
    found = {ref: connection.execute(_DRIVE_CALLED, {"ref": ref}).first() for ref in sorted(refs)}
    return {ref: row for ref, row in found.items() if row is not None}


def _call(command: MakePledge, drives: Mapping[str, Any]) -> _Call | Problem:
    drive = drives.get(command.drive)
    if drive is None:
        return NotFound("No such drive.")
    if command.who.mode == "test" and not drive.test:
        # Before a stored answer is looked for: live and test keys share their partner's idempotency keys.
        return Forbidden("A test key works on test drives only.")
    partner = drive.partner if command.who.hosted_form else command.who.partner
    # The drive belongs to what a key stands for: the same body for another drive is another request.
    key, body_hash = Key(f"{partner}:pledges", command.key), f"{drive.id}.{command.body_hash}"
    return _Call(command, drive, partner, key, body_hash)


def _donors(connection: Connection, promises: Iterable[_Promise]) -> dict[tuple[str, bytes], str]:
    """The donors known by address, new ones included."""
    wanted = sorted({(one.call.partner, one.address_mac) for one in promises if one.address_mac})
    if not wanted:
        return {}
    new = {known_by: ids.new("dnr") for known_by in wanted}
    rows = [{"id": donor, "partner": partner, "address_mac": mac} for (partner, mac), donor in new.items()]
    made = connection.execute(_NEW_DONORS[connection.dialect.name], rows)
    if made.rowcount == len(rows):
        return new
    return {(row.partner, row.address_mac): row.id for row in _DONORS_KNOWN.find(connection, wanted)}


def _reply(pledge_id: str, drive_id: str, creator_id: str | None, amount: Money, now: datetime) -> bytes:
    """The body of the 201 but for the token."""
    return as_bytes(
        {
            "id": pledge_id,
            "drive": drive_id,
            "creator": creator_id,
            "amount": as_json(amount.minor_units, amount.currency),
            "status": PledgeStatus.OPEN.value,
            "checkout": None,
            "queue": None,
            "created_at": rfc3339(now),
        }
    )


def _pledge_made(promise: _Promise, donors: Mapping[tuple[str, bytes], str], now: datetime) -> PledgeMade:
    call, wish = promise.call, promise.call.command.wish
    known = None if promise.address_mac is None else donors[call.partner, promise.address_mac]
    source = wish.source
    return PledgeMade(
        pledge_id=promise.pledge_id,
        drive_id=DriveId(call.drive.id),
        version=1,
        status=PledgeStatus.OPEN,
        amount=wish.amount.money(),
        donor_id=DonorId(known or ids.new("dnr")),  # without an address each gift is a new donor
        creator_id=promise.creator_id,
        source=None if source is None else Source(platform=source.platform, campaign=source.campaign),
        partner=call.partner,
        checkout_mode=wish.checkout_mode,
        locale=wish.donor.locale,
        test=call.drive.test,
        made_at=now,
    )


def _pledge_row(promise: _Promise, made: PledgeMade) -> dict[str, Any]:
    wish, source = promise.call.command.wish, made.source
    return {
        "id": made.pledge_id,
        "drive_id": made.drive_id,
        "creator_id": made.creator_id,
        "donor_id": made.donor_id,
        "partner": made.partner,
        "version": made.version,
        "status": str(made.status),
        "amount": made.amount.minor_units,
        "currency": made.amount.currency,
        "locale": made.locale,
        "platform": source.platform if source else None,
        "campaign": source.campaign if source else None,
        "reference": wish.reference,
        "return_url": wish.return_url,
        "checkout_mode": made.checkout_mode,
        "test": made.test,
        "made_at": made.made_at,
    }


def _words_row(promise: _Promise) -> dict[str, Any] | None:
    """What the donor said, None where that is nothing."""
    wish = promise.call.command.wish
    donor = wish.donor
    name, message = normal(donor.name), normal(wish.message)
    referrer = wish.source.referrer if wish.source else None
    if not (name or message or donor.email or referrer):
        return None
    return {
        "pledge_id": promise.pledge_id,
        "name": name,
        "email": donor.email,
        "message": message,
        "referrer": referrer,
        "anonymous": donor.anonymous,
        # Only processes of an earlier version read it, beside this one: may both be shown as they are kept?
        "approved": displayed(name) == name and displayed(message) == message,
    }
