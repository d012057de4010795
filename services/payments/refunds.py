"""Refunds asked for through our API: reserved under the payment's lock, stored, then sent.

Those past the threshold are sent once a second key has approved them (large_refunds/).

A refund is reported twice, by Stripe's response and by its webhook: both have the same fact (`re_…`),
and its metadata ties it to our row (docs/architecture.md, "Stripe"). A crash at
any line neither loses nor doubles one: it is sent again under the same key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Row, bindparam, insert, select, text, update

from backbone import ids
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from backbone.http.caller import require_owned
from backbone.http.problems import Conflict, Forbidden, Invalid, NotFound
from backbone.idempotency import KeyedReply, ScopedKey, claim, complete
from backbone.money import Money, as_json
from services.payments.domain import Observation
from services.payments.holding.decisions import DecidedBy, note_refund
from services.payments.large_refunds.asking import ask_second_key
from services.payments.large_refunds.threshold import NO_THRESHOLD, Threshold
from services.payments.processor import Processor, ProcessorError, Refused, Unknown
from services.payments.recording.record import record
from services.payments.recording.rows import PaymentRow, read_facts, read_payments
from services.payments.refund_rows import (
    WHOSE,
    WHOSE_PAYMENT,
    RefundState,
    Reserved,
    reserved_of,
    reserved_units,
    state_of,
    update_of,
)
from services.payments.stripe.objects import clean
from services.payments.tables import OWED, REFUNDS

BATCH: Final = 20
RETRY_AFTER: Final = exponential(1.0, 60.0)
KEY_LIVES: Final = timedelta(hours=23)
SETTLED_AFTER: Final = timedelta(seconds=10)

NOBODY: Final = DecidedBy("", "")

log = structlog.get_logger()


class RefundExceedsPayment(Conflict):
    slug, title = "refund-exceeds-payment", "More than is left of the payment"


class NotPaid(Conflict):
    slug, title = "pledge-not-paid", "Nothing was paid yet"


class CurrencyDiffers(Invalid):
    slug, title = "currency-differs", "The refund's currency is not the payment's"


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Give back `amount` of what was paid, all that is left where it is None.

    Of the payments of a pledge, or of the one payment named.
    """

    pledge_id: str | None
    partner: str | None  # None: any partner's (the installation's own key)
    amount: Money | None
    reason: str | None
    key: ScopedKey
    body_hash: str
    test_key: bool = False
    payment_id: str | None = None
    by: DecidedBy = NOBODY

    @property
    def named(self) -> str:
        """What the caller named, for its problem documents."""
        return "pledge" if self.payment_id is None else "payment"


class _Choice(NamedTuple):
    """The payment to refund from, how much, and what it gives back with that in all, in minor units."""

    row: PaymentRow
    amount: Money
    in_all: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """Why the outcome of a refund is not known; `new_key`: its idempotency key cannot be used again."""

    reason: str
    new_key: bool = False


Reply = tuple[int, bytes]
"""The status and the body of an answer."""

OwnerOf = Callable[[str], Awaitable[str | None]]
"""Asks which partner a drive belongs to, where no event has reported it."""


async def _not_known(_drive_id: str) -> None:
    return None


class RefundService:
    """Makes refunds, and sends again those whose outcome is not known."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        clock: Clock,
        timeout_s: float,
        owner_of: OwnerOf = _not_known,
        threshold: Threshold = NO_THRESHOLD,
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._owner_of = owner_of
        self._threshold = threshold
        self._in_request = timedelta(seconds=2 * timeout_s)
        self.work = DurableWork("payments.refunds", self, retry_after=RETRY_AFTER, one_by_one=True)

    async def make(self, request: RefundRequest) -> KeyedReply:
        """Make the refund, or return the reply that its idempotency key got before.

        Raises `NotFound`, `Forbidden`, `NotYourDrive`, `NotPaid`, `RefundExceedsPayment`,
        `CurrencyDiffers`, what a reused key raises, and `Overloaded` where it is not known whose the
        drive is.
        """
        await self._admit(request)
        waiting: bytes | None = None
        async with self._database.transaction() as session:
            before = await claim(session, request.key, request.body_hash)
            if before is None:
                reserved, waiting = await self._reserve(session, request)
        if before is not None:
            return before.replay(request.body_hash)
        crash_point("payments.refunds.after_reserve")
        reply = await self.send_now(reserved) if waiting is None else (201, waiting)
        return KeyedReply(*reply, replayed=False)

    async def send_now(self, reserved: Reserved) -> Reply:
        """Send a refund that is `unsent`; where its outcome stays unknown, `run` sends it again."""
        sent = await self._send(reserved)
        if not isinstance(sent, Unsent):
            return sent
        log.warning("refund.unknown", refund=reserved.id, reason=sent.reason)
        reply = await self._answer_pending(reserved, sent)
        await self._retry(reserved.id, "unsent", Failure(sent.reason, 1, RETRY_AFTER(1)))
        return reply

    def first_retry_at(self, made_at: datetime) -> datetime:
        """When a refund that a request began to send is sent by `run`, unless its outcome is known."""
        return made_at + self._in_request

    async def _admit(self, request: RefundRequest) -> None:
        """Raise unless the caller may refund this; also before a stored answer is given again.

        Outside of the transaction, because pledges may have to be asked.
        """
        if request.payment_id is not None:
            await self.admit(request.payment_id, request.partner, test_key=request.test_key)
            return
        async with self._database.reading() as session:
            found = (await session.execute(WHOSE, {"pledge": request.pledge_id})).first()
        if found is None:
            raise NotFound("No such pledge.")
        await self._require_access(found, request.partner, request.test_key)

    async def admit(self, payment_id: str, partner: str | None, *, test_key: bool) -> None:
        """Raise unless this partner (None: any) may refund this payment.

        Raises `NotFound`, `Forbidden`, `NotYourDrive`, and `Overloaded` where it is not known whose its
        drive is.
        """
        async with self._database.reading() as session:
            found = (await session.execute(WHOSE_PAYMENT, {"payment": payment_id})).first()
        if found is None:
            raise NotFound("No such payment.")
        await self._require_access(found, partner, test_key)

    async def _require_access(self, found: Row[Any], partner: str | None, test_key: bool) -> None:
        if test_key and not found.test:
            raise Forbidden("A test key works on test drives only.")
        if partner not in (None, found.maker):
            require_owned(partner, found.owner or await self._owner_of(found.drive_id))

    async def _reserve(self, session: Transaction, request: RefundRequest) -> tuple[Reserved, bytes | None]:
        """Take the amount out of what is left, under the payment's lock.

        Returns the answer too where a second key has to decide: it is stored under the idempotency key.
        """
        if request.payment_id is None:
            rows = await read_payments(session, pledges=[request.pledge_id or ""])
        else:
            rows = await read_payments(session, ids=[request.payment_id])
        paid = [row for row in rows.values() if row.captured and not row.offline]
        if request.payment_id is None and request.partner is not None:
            # Another capture of the pledge may have been released into a drive that is not the caller's.
            first = min(rows.values(), key=lambda row: row.capture_index)
            paid = [row for row in paid if row.drive_id == first.drive_id]
        if not paid:
            raise NotPaid("Only what was paid can be refunded.")
        row, amount, in_all = await self._choose(session, paid, request.amount)
        now = self._clock.now()
        refund_id = ids.new("rfd")
        assert row.intent is not None
        try:
            parameters = self._processor.refund_parameters(row.intent, amount, refund_id, request.reason)
        except Refused as error:
            raise Invalid(str(error), errors=[{"pointer": "/amount/value", "detail": str(error)}]) from error
        reserved = Reserved(refund_id, row.id, row.intent, amount, parameters, 1, 0, request.key, now)
        waiting = self._threshold.is_passed(row, in_all)
        await self._store(session, reserved, waiting=waiting)
        if request.by.key_id:
            await note_refund(session, row.id, refund_id, request.by, request.reason, now)
        if not waiting:
            return reserved, None
        approval = await ask_second_key(session, refund_id, row.id, request.by, request.reason, now)
        reply = _reply(reserved, "pending", approval=approval)
        await complete(session, request.key, 201, reply)
        log.info("refund.needs_second_key", refund=refund_id, payment=row.id)
        return reserved, reply

    async def _choose(self, session: Transaction, paid: list[PaymentRow], wanted: Money | None) -> _Choice:
        """The payment to refund from: a pledge paid twice has two."""
        lefts = [(row, row.captured - row.refunded - await reserved_units(session, row.id)) for row in paid]
        currency = paid[0].paid_currency or ""
        if wanted is not None and wanted.currency != currency:
            detail = f"It was paid in {currency}."
            raise CurrencyDiffers(detail, errors=[{"pointer": "/amount/currency", "detail": detail}])
        for row, left in lefts:
            units = left if wanted is None else wanted.minor_units
            if 0 < units <= left:
                return _Choice(row, Money(units, currency), row.captured - left + units)
        most = max(left for _, left in lefts)
        raise RefundExceedsPayment(f"{Money(max(most, 0), currency)} is left to refund.")

    async def _store(self, session: Transaction, reserved: Reserved, *, waiting: bool) -> None:
        row = {
            "id": reserved.id,
            "payment_id": reserved.payment_id,
            "intent": reserved.intent,
            "units": reserved.amount.minor_units,
            "currency": reserved.amount.currency,
            "parameters": json.dumps(reserved.parameters),
            "state": "unapproved" if waiting else "unsent",
            "n": 1,
            "tries": 0,
            "scope": reserved.key.scope,
            "key": reserved.key.key,
            "settled": waiting,
            "next_try_at": self.first_retry_at(reserved.made_at),
            "made_at": reserved.made_at,
        }
        await session.execute(insert(REFUNDS), [row])

    async def _send(self, reserved: Reserved) -> Reply | Unsent:
        """Send a refund and record its outcome; the answer for the caller of our API."""
        observation, refusal, unknown = None, None, None
        try:
            if self._clock.now() - reserved.made_at >= KEY_LIVES:
                raise Unknown("its key is too old to be sent again", replayed=True)
            observation = await self._processor.refund(reserved.stripe_key, reserved.parameters)
        except Refused as error:
            refusal = str(error)
        except ProcessorError as error:
            unknown = error
        if isinstance(unknown, Unknown) and unknown.replayed:
            return await self._look_up(reserved)
        crash_point("payments.refunds.after_send")
        if observation is not None:
            return await self._record(reserved, observation)
        if refusal is not None:
            return await self._fail(reserved, refusal)
        return Unsent(str(unknown))

    async def _look_up(self, reserved: Reserved) -> Reply | Unsent:
        """Find the outcome in Stripe's list: the key is answered with a stored error, and always will be."""
        try:
            listed = await self._processor.list_refunds(reserved.intent)
        except ProcessorError as error:
            return Unsent(str(error))
        found = next((each for each in listed if each.refund_id == reserved.id), None)
        if found is not None:
            return await self._record(reserved, found)
        if self._clock.now() - reserved.made_at < SETTLED_AFTER:
            return Unsent("not listed yet")
        return Unsent("a stored error; nothing was refunded", new_key=True)

    async def _record(self, reserved: Reserved, observation: Observation) -> Reply:
        async with self._database.transaction() as session:
            await record(session, [observation], self._clock.now())
            await session.execute(
                update_of(reserved).values(state="sent", stripe_id=observation.id, tries=reserved.tries + 1)
            )
            facts = await read_facts(session, ids=[observation.id])
            return await self._settle(session, reserved, state_of(facts[observation.id].observation.rank))

    async def _fail(self, reserved: Reserved, reason: str) -> Reply:
        log.warning("refund.refused", refund=reserved.id, reason=reason)
        async with self._database.transaction() as session:
            await session.execute(update_of(reserved).values(state="failed", reason=reason[:2000]))
            return await self._settle(session, reserved, "failed")

    async def _answer_pending(self, reserved: Reserved, unsent: Unsent) -> Reply:
        """Answer the idempotency key of an unsent refund with `pending`; the retries follow."""
        async with self._database.transaction() as session:
            if unsent.new_key:
                # The age of a key counts from its first attempt: with the old time it is never sent.
                values = {"n": reserved.n + 1, "made_at": self._clock.now()}
                await session.execute(update_of(reserved).where(REFUNDS.c.state == "unsent").values(values))
            return await self._settle(session, reserved, "pending")

    async def _settle(self, session: Transaction, reserved: Reserved, state: RefundState) -> Reply:
        """Give the idempotency key its answer, once; the answer."""
        reply = _reply(reserved, state)
        first = await session.execute(
            update_of(reserved)
            .where(REFUNDS.c.settled.is_(False))
            .values(settled=True)
            .returning(REFUNDS.c.id)
        )
        if first.first() is not None:
            await complete(session, reserved.key, 201, reply)
        return 201, reply

    async def run(self, stop: asyncio.Event) -> None:
        """Send again what is due, until `stop`."""
        await self.work.run(stop)

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`.

        A refund whose webhook was recorded before its answer only lacks the reply to its caller.
        """
        async with self._database.reading() as session:
            return (await session.execute(_DUE, {"now": self._clock.now()})).all()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`: send refunds again, or reply to the caller of one that was sent."""
        failed = []
        for row in batch:
            if row.state != "unsent":
                await self._answer_late(row)
                continue
            reserved = reserved_of(row)
            sent = await self._send(reserved)
            if isinstance(sent, Unsent):
                await self._answer_pending(reserved, sent)
                failed.append(Failed(row, sent.reason))
        return failed

    def label(self, item: Row[Any]) -> str:
        """See `WorkQueue`."""
        return str(item.id)

    def failures(self, item: Row[Any]) -> int:
        """See `WorkQueue`."""
        return int(item.tries)

    async def retry(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`."""
        await self._retry(item.id, item.state, failure)

    async def _retry(self, refund_id: str, state: str, failure: Failure) -> None:
        values = {
            "tries": failure.attempts,
            "reason": clean(failure.reason[:2000]),
            "next_try_at": self._clock.now() + (failure.delay or timedelta()),
        }
        # A refund whose webhook was recorded meanwhile is not unsent any more.
        this = update(REFUNDS).where(REFUNDS.c.id == refund_id, REFUNDS.c.state == state)
        async with self._database.transaction() as session:
            await session.execute(this.values(values))

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`. A refund is never given up: money may have moved."""
        await self.retry(item, failure)

    async def _answer_late(self, row: Row[Any]) -> None:
        async with self._database.transaction() as session:
            facts = await read_facts(session, ids=[row.stripe_id])
            await self._settle(session, reserved_of(row), state_of(facts[row.stripe_id].observation.rank))


def _reply(reserved: Reserved, state: RefundState, **more: Any) -> bytes:
    amount = as_json(reserved.amount.minor_units, reserved.amount.currency)
    return json.dumps({"id": reserved.id, "status": state, "amount": amount, **more}).encode()


_DUE: Final = (
    select(REFUNDS)
    .where(REFUNDS.c.next_try_at <= bindparam("now"), text(OWED))
    .order_by(REFUNDS.c.next_try_at)
    .limit(BATCH)
)
