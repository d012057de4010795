"""The hot path: pledges that arrive together are stored together, in one transaction.

A batch takes the same eight statements for one pledge as for a hundred. An invalid request is answered with
its own problem and stores nothing; the other requests of its batch are not affected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Insert, bindparam, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from backbone import idempotency, ids
from backbone.clock import Clock
from backbone.contracts.pledges import PledgeMade
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.pair_lookup import PairLookup
from backbone.database.transaction import SyncTransaction
from backbone.exchange_rates import Pair, Quote, find_quote
from backbone.group_commit import GroupCommit
from backbone.http.problems import Forbidden, NotFound, Problem
from backbone.idempotency import KeyedReply, ScopedKey, StoredReply
from backbone.ids import CreatorId, PledgeId
from backbone.messaging.outbox import announce_in
from services.pledges.domain import (
    DomainError,
    PledgeSecrets,
    check_accepts_pledges,
    check_amount,
    check_minimum,
    check_partner_allowed,
    check_purpose,
    check_test_mode,
    reporting_amount,
    unknown_creator,
)
from services.pledges.new_pledges import (
    MakePledge,
    NewPledge,
    ResolvedCommand,
    donor_text_row,
    pledge_made,
    pledge_row,
)
from services.pledges.rates import known_quotes
from services.pledges.tables import CREATORS, DONOR_TEXTS, DONORS, DRIVES, PLEDGES
from services.pledges.views import new_pledge_json

_PLEDGES = Counter("ataa_pledges_total", "Requests to create a pledge, by outcome.", ["outcome"])
_MADE, _REPLAYED, _REFUSED = (_PLEDGES.labels(outcome) for outcome in ("made", "replayed", "refused"))

_MAX_CACHED_CREATORS: Final = 10_000
NO_MINIMUMS: Final[Mapping[str, int]] = {}


# Built once: building a statement costs more than executing it.
_DRIVE_BY_REF: Final = (
    select(
        DRIVES.c.id,
        DRIVES.c.slug,
        DRIVES.c.state,
        DRIVES.c.currency,
        DRIVES.c.test,
        DRIVES.c.partner,
        DRIVES.c.partners,
        DRIVES.c.zakat_eligible,
        DRIVES.c.moderation,
        DRIVES.c.currencies,
    )
    .where(or_(DRIVES.c.slug == bindparam("ref"), DRIVES.c.id == bindparam("ref")))
    .with_for_update(read=True)
)
_CREATORS: Final = select(CREATORS.c.id, CREATORS.c.slug, CREATORS.c.drive_id)
_CREATORS_BY_SLUG: Final = PairLookup(_CREATORS, CREATORS.c.drive_id, CREATORS.c.slug)
_CREATORS_BY_ID: Final = PairLookup(_CREATORS, CREATORS.c.drive_id, CREATORS.c.id)
_DONORS_BY_ADDRESS: Final = PairLookup(select(DONORS), DONORS.c.partner, DONORS.c.address_mac)
_INSERT_DONORS: Final[Mapping[str, Insert]] = {
    "sqlite": sqlite.insert(DONORS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(DONORS).on_conflict_do_nothing(),
}
_INSERT_PLEDGES: Final = insert(PLEDGES)
_INSERT_DONOR_TEXTS: Final = insert(DONOR_TEXTS)


_Answer = KeyedReply | Exception


class Intake:
    """Creates pledges; concurrent calls of `submit` share a transaction.

    `minimums` are the least minor units by currency that donors may give without a secret key.
    """

    def __init__(
        self,
        database: Database,
        secrets: PledgeSecrets,
        clock: Clock,
        *,
        moves_real_money: bool = False,
        minimums: Mapping[str, int] = NO_MINIMUMS,
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._clock = clock
        self._moves_real_money = moves_real_money
        self._minimums = minimums
        self._creators: dict[tuple[str, str], CreatorId] = {}
        self._group_commit: GroupCommit[MakePledge, KeyedReply] = GroupCommit(self._commit)

    async def submit(self, command: MakePledge) -> KeyedReply:
        """Create the pledge, or return the reply that its key got before; after the commit.

        Raises NotFound, Forbidden, KeyReused, Overloaded, or a DomainError of the rule that is broken. Then
        nothing is stored.
        """
        return await self._group_commit.submit(command)

    async def _commit(self, batch: Sequence[MakePledge]) -> Sequence[_Answer]:
        try:
            answers = await self._make_pledges(batch)
        except IntegrityError:
            # Another process has just used one of the keys. On the second attempt its reply is found.
            answers = await self._make_pledges(batch)
        crash_point("pledges.intake.after_commit")
        for answer in answers:
            (_REFUSED if isinstance(answer, Exception) else _REPLAYED if answer.replayed else _MADE).inc()
        return answers

    async def _make_pledges(self, batch: Sequence[MakePledge]) -> list[_Answer]:
        async with self._database.transaction() as session:
            return await session.run_sync(self._make_pledges_in, batch)

    def _make_pledges_in(self, transaction: SyncTransaction, batch: Sequence[MakePledge]) -> list[_Answer]:
        """Process the batch synchronously: awaiting each statement would cost as much as executing it."""
        drives = _lock_drives(transaction, {command.drive for command in batch})
        resolved_batch = [_resolve(command, drives) for command in batch]
        known = [resolved for resolved in resolved_batch if isinstance(resolved, ResolvedCommand)]
        stored = idempotency.find_replies_in(transaction, list({resolved.key for resolved in known}))
        fresh = [resolved for resolved in known if resolved.key not in stored]
        self._load_creators(transaction, fresh)
        quotes = known_quotes(transaction, filter(None, map(_other_pair, fresh)))
        answers, new_pledges = self._decide(resolved_batch, dict(stored), quotes, now := self._clock.now())
        if new_pledges:
            made = _insert_rows(transaction, new_pledges, now)
            replies = [
                (one.resolved.key, StoredReply(one.resolved.body_hash, 201, one.reply)) for one in new_pledges
            ]
            idempotency.store_replies_in(transaction, replies, now)
            announce_in(transaction, made)
        return answers

    def _decide(
        self,
        resolved_batch: Iterable[ResolvedCommand | Problem],
        replies: dict[ScopedKey, StoredReply],
        quotes: Mapping[Pair, Quote],
        now: datetime,
    ) -> tuple[list[_Answer], list[NewPledge]]:
        """An answer for each command, in order, and the pledges to be stored.

        The first valid request takes its key, so equal keys in a batch have the same outcome as one by one.
        """
        answers: list[_Answer] = []
        new_pledges: list[NewPledge] = []
        for resolved in resolved_batch:
            if isinstance(resolved, Problem):
                answers.append(resolved)
            elif (earlier := replies.get(resolved.key)) is not None:
                answers.append(self._replay(earlier, resolved.body_hash))
            elif isinstance(outcome := self._validate(resolved, quotes, now), DomainError):
                answers.append(outcome)
            else:
                new_pledges.append(outcome)
                replies[resolved.key] = StoredReply(resolved.body_hash, 201, outcome.reply)
                answers.append(
                    KeyedReply(201, self._with_token(outcome.reply, outcome.pledge_id), replayed=False)
                )
        return answers, new_pledges

    def _replay(self, earlier: StoredReply, body_hash: str) -> _Answer:
        try:
            stored = earlier.replay(body_hash)
        except Problem as reused:
            return reused
        return stored._replace(body=self._with_token(stored.body, json.loads(stored.body)["id"]))

    def _with_token(self, reply: bytes, pledge_id: str) -> bytes:
        """Add the token, which is derived from the id: stored replies hold no secret."""
        return reply[:-1] + f',"token":"{self._secrets.token(pledge_id)}"}}'.encode()

    def _load_creators(self, transaction: SyncTransaction, resolved_batch: Iterable[ResolvedCommand]) -> None:
        """Cache the creators named in the batch. A creator never changes its slug or drive."""
        wanted = {
            (resolved.drive.id, name)
            for resolved in resolved_batch
            if (name := resolved.command.request.creator) is not None
            and (resolved.drive.id, name) not in self._creators
        }
        if not wanted:
            return
        if len(self._creators) > _MAX_CACHED_CREATORS:
            self._creators.clear()
        named = [pair for pair in wanted if not ids.is_id(pair[1], "crt")]
        for row in (
            *_CREATORS_BY_SLUG.find(transaction, named),
            *_CREATORS_BY_ID.find(transaction, wanted.difference(named)),
        ):
            self._creators[row.drive_id, row.slug] = self._creators[row.drive_id, row.id] = row.id

    def _validate(
        self, resolved: ResolvedCommand, quotes: Mapping[Pair, Quote], now: datetime
    ) -> NewPledge | DomainError:
        """The pledge that the request becomes, or the rule that it breaks."""
        command, request, drive = resolved.command, resolved.command.request, resolved.drive
        amount = request.amount.money()
        try:
            if not command.caller.admin:
                check_partner_allowed(resolved.partner, drive.partner, drive.partners)
            check_accepts_pledges(drive.state)
            check_test_mode(drive.test, self._moves_real_money)
            check_amount(amount, drive.currency, drive.currencies or ())
            if command.caller.publishable:
                check_minimum(amount, self._minimums)
            check_purpose(request.purpose, drive.zakat_eligible)
            quote = find_quote(amount.currency, drive.currency, quotes, now) if quotes else None
            reporting = reporting_amount(amount, drive.currency, quote)
        except DomainError as error:
            return error
        creator_id = None if request.creator is None else self._creators.get((drive.id, request.creator))
        if request.creator is not None and creator_id is None:
            return unknown_creator()
        email = request.donor.email
        mac = None if email is None else self._secrets.address_mac(resolved.partner, email)
        pledge_id = PledgeId(ids.new("plg"))
        reply = new_pledge_json(pledge_id, drive.id, creator_id, amount, request.purpose, now)
        return NewPledge(resolved, pledge_id, creator_id, reporting, mac, reply)


def _insert_rows(
    transaction: SyncTransaction, new_pledges: Sequence[NewPledge], now: datetime
) -> list[PledgeMade]:
    """Insert donors, pledges and donor texts; return the events to announce."""
    donors = _find_or_create_donors(transaction, new_pledges)
    made = [pledge_made(one, donors, now) for one in new_pledges]
    transaction.execute(_INSERT_PLEDGES, [pledge_row(*pair) for pair in zip(new_pledges, made, strict=True)])
    if donor_texts := [row for one in new_pledges if (row := donor_text_row(one)) is not None]:
        transaction.execute(_INSERT_DONOR_TEXTS, donor_texts)
    return made


def _lock_drives(transaction: SyncTransaction, refs: set[str]) -> dict[str, Any]:
    """The drives by slug or id, locked against state changes until the transaction ends."""
    found = {ref: transaction.execute(_DRIVE_BY_REF, {"ref": ref}).first() for ref in sorted(refs)}
    return {ref: row for ref, row in found.items() if row is not None}


def _resolve(command: MakePledge, drives: Mapping[str, Any]) -> ResolvedCommand | Problem:
    drive = drives.get(command.drive)
    if drive is None:
        return NotFound("No such drive.")
    if command.caller.mode == "test" and not drive.test:
        # Before a stored reply is looked up: live and test keys share their partner's idempotency keys.
        return Forbidden("A test key works on test drives only.")
    partner = drive.partner if command.caller.hosted_form else command.caller.partner
    # The drive is part of the hash: the same body for another drive is another request.
    key, body_hash = ScopedKey(f"{partner}:pledges", command.key), f"{drive.id}.{command.body_hash}"
    return ResolvedCommand(command, drive, partner, key, body_hash)


def _other_pair(resolved: ResolvedCommand) -> Pair | None:
    """The currencies of a pledge and its drive, where the drive takes a currency that is not its own."""
    currency = resolved.command.request.amount.currency
    taken = resolved.drive.currencies or ()
    return (currency, resolved.drive.currency) if currency in taken else None


def _find_or_create_donors(
    transaction: SyncTransaction, new_pledges: Iterable[NewPledge]
) -> dict[tuple[str, bytes], str]:
    """The ids of the donors by partner and address; new donors are inserted."""
    wanted = sorted({(one.resolved.partner, one.address_mac) for one in new_pledges if one.address_mac})
    if not wanted:
        return {}
    new = {known_by: ids.new("dnr") for known_by in wanted}
    rows = [{"id": donor, "partner": partner, "address_mac": mac} for (partner, mac), donor in new.items()]
    made = transaction.execute(_INSERT_DONORS[transaction.dialect.name], rows)
    if made.rowcount == len(rows):
        return new
    return {(row.partner, row.address_mac): row.id for row in _DONORS_BY_ADDRESS.find(transaction, wanted)}
