"""Releasing a held payment: a person counts it, in its drive or in another one.

The decision is stored with the payment and survives everything that happens later: restatements follow it,
and events of the pledge change neither drive nor creator of a released payment.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from backbone.clock import Clock
from backbone.contracts.pledges import DriveState
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.exchange_rates import is_convertible
from backbone.http.caller import Caller
from backbone.http.problems import Conflict, Invalid, NotFound, Overloaded
from backbone.idempotency import KeyedReply, ScopedKey, claim, complete
from services.payments.creator_lookup import CreatorLookup
from services.payments.domain import NO_DRIVE
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.holding.decisions import Attribution, DecidedBy, note_release
from services.payments.rates.store import find_rates
from services.payments.recording.restate import restate
from services.payments.recording.rows import PaymentRow, read_facts, read_payments, write_facts
from services.payments.statements import lock_intents
from services.payments.tables import DRIVES, PAYMENTS
from services.payments.treasury.payment_reads import read_payment


class PaymentNotHeld(Conflict):
    slug, title = "payment-not-held", "The payment is not held"


class DriveDoesNotMatch(Conflict):
    slug, title = "drive-does-not-match", "The drive cannot count this payment"


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Count a held payment, in its own drive where `drive` is None.

    Where `names_creator`, it is credited to `creator` (None: to nobody). Otherwise its creator stays, unless
    the drive is another one.
    """

    payment_id: str
    drive: str | None
    creator: str | None
    names_creator: bool
    note: str
    caller: Caller
    key: ScopedKey | None
    body_hash: str


class Releases:
    """Releases held payments."""

    def __init__(
        self, database: Database, drives: DriveLookup, creators: CreatorLookup, clock: Clock
    ) -> None:
        self._database = database
        self._drives = drives
        self._creators = creators
        self._clock = clock

    async def release(self, request: ReleaseRequest) -> KeyedReply:
        """Release the payment, or return the reply that the idempotency key got before.

        Raises `NotFound`, `NotYourDrive`, `Forbidden`, `Invalid`, `PaymentNotHeld`, `DriveDoesNotMatch`,
        what a reused key raises, and `Overloaded` where pledges is needed and unavailable.
        """
        async with self._database.reading() as session:
            found = (await session.execute(_FIND, {"payment": request.payment_id})).first()
        if found is None:
            raise NotFound("No such payment.")
        await self._drives.require_access(found.drive_id, request.caller)
        target = await self._target(request, found.drive_id)
        moves = target.id != found.drive_id
        takes_zakat = not moves or (found.zakat and await self._drives.takes_zakat(target.id))
        creator = await self._creators.find(target.id, request.creator)
        async with self._database.transaction() as session:
            to = Attribution(target.id, creator)
            reply = await self._release(session, request, found.intent, to, takes_zakat=takes_zakat)
        crash_point("payments.holding.after_commit")
        return reply

    async def _target(self, request: ReleaseRequest, own: str) -> KnownDrive:
        """The drive in which the payment is to count."""
        if request.drive is None and own == NO_DRIVE:
            raise _invalid("/drive", "The payment names no drive: name the one in which it counts.")
        return await self._drives.find_owned(request.drive or own, request.caller)

    async def _release(
        self,
        session: Transaction,
        request: ReleaseRequest,
        intent: str | None,
        to: Attribution,
        *,
        takes_zakat: bool,
    ) -> KeyedReply:
        if request.key is not None:
            before = await claim(session, request.key, request.body_hash)
            if before is not None:
                return before.replay(request.body_hash)
        # As for webhooks: facts of this intent are recorded before or after, not meanwhile.
        await lock_intents(session, [intent] if intent else [])
        row = (await read_payments(session, ids=[request.payment_id]))[request.payment_id]
        if not row.held or row.intent != intent:
            raise PaymentNotHeld("It is counted already, or nothing was paid.")
        if row.zakat and not takes_zakat:
            raise DriveDoesNotMatch("It was given as zakat, which the drive does not take.")
        await _require_match(session, row, to.drive_id, self._clock.now())
        await self._count(session, request, row, to)
        body = json.dumps(await read_payment(session, row.id), ensure_ascii=False).encode()
        if request.key is not None:
            await complete(session, request.key, 200, body)
        return KeyedReply(200, body, replayed=False)

    async def _count(
        self, session: Transaction, request: ReleaseRequest, row: PaymentRow, to: Attribution
    ) -> None:
        """Attribute the payment as decided, store the decision and restate the payment."""
        before, now = Attribution.of(row), self._clock.now()
        if row.released_at is None:
            row.pledged_drive, row.pledged_creator = before.drive_id, before.creator_id
        row.released_at, row.drive_id = now, to.drive_id
        if request.names_creator or to.drive_id != before.drive_id:
            row.creator_id = to.creator_id
        await note_release(session, row, before, DecidedBy.caller(request.caller), request.note, now)
        stored = await read_facts(session, intents=[row.intent] if row.intent else [])
        facts = {each: replace(fact) for each, fact in stored.items()}
        moved_from = {row.id: before.drive_id}
        await restate(session, [row], facts, now, changed=frozenset((row.id,)), moved_from=moved_from)
        await write_facts(session, [fact for each, fact in facts.items() if fact != stored[each]], now)


async def _require_match(session: Transaction, row: PaymentRow, drive_id: str, now: datetime) -> None:
    """Raise unless the drive can count the payment. Money of live drives counts in no test drive."""
    found = {each.id: each for each in await session.execute(_DRIVES, {"ids": [drive_id, row.drive_id]})}
    to, own = found.get(drive_id), found.get(row.drive_id)
    if to is None:
        raise Overloaded("The drive was created a moment ago.", retry_after_s=2)
    if to.state == DriveState.DRAFT:
        raise DriveDoesNotMatch("The drive has not been opened yet.")
    if to.currency != row.paid_currency:
        await _require_rate(session, row, to.currency, to.currencies or (), now)
    if own is not None and own.test != to.test:
        raise DriveDoesNotMatch("One of the two drives is a test drive.")


async def _require_rate(
    session: Transaction, row: PaymentRow, currency: str, others: Collection[str], now: datetime
) -> None:
    """Raise unless a drive in `currency` takes the payment's currency besides, and there is a rate."""
    paid = row.paid_currency or ""
    if paid not in others:
        raise DriveDoesNotMatch(f"It was paid in {paid}, the drive is in {currency}.")
    frozen = row.rate if row.reporting_currency == currency else None
    quote = (await find_rates(session, [(paid, currency)], now)).get((paid, currency))
    rate = frozen or (quote and quote.rate)
    if rate is None or not is_convertible(row.captured, paid, currency, rate):
        raise DriveDoesNotMatch(f"There is no exchange rate from {paid} to {currency} for it now.")


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[{"pointer": pointer, "detail": detail}])


_FIND: Final = select(PAYMENTS.c.drive_id, PAYMENTS.c.intent, PAYMENTS.c.zakat).where(
    PAYMENTS.c.id == bindparam("payment")
)
_DRIVES: Final = select(
    DRIVES.c.id, DRIVES.c.currency, DRIVES.c.currencies, DRIVES.c.state, DRIVES.c.test
).where(DRIVES.c.id.in_(bindparam("ids", expanding=True)))
