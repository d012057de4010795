"""Refunds asked for through our API: reserved under the payment's lock, stored, then sent.

A refund is reported twice, by Stripe's response and by its webhook: both have the same fact (`re_…`),
and its metadata ties it to our row (docs/architecture.md, "Stripe"). A crash at
any line neither loses nor doubles one: it is sent again under the same key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import structlog
from sqlalchemy import Row, bindparam, func, insert, select, text, update

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
from services.payments.domain import Observation, RefundRank
from services.payments.holding.decisions import DecidedBy, note_refund
from services.payments.processor import Processor, ProcessorError, Refused, Unknown
from services.payments.recording.record import record
from services.payments.recording.rows import PaymentRow, read_facts, read_payments
from services.payments.stripe.objects import clean
from services.payments.tables import DRIVES, OWED, PAYMENTS, REFUNDS

BATCH: Final = 20
RETRY_AFTER: Final = exponential(1.0, 60.0)
KEY_LIVES: Final = timedelta(hours=23)
SETTLED_AFTER: Final = timedelta(seconds=10)

log = structlog.get_logger()

RefundState = Literal["pending", "succeeded", "failed"]


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
    by: DecidedBy | None = None

    @property
    def named(self) -> str:
        """What the caller named, for its problem documents."""
        return "pledge" if self.payment_id is None else "payment"


@dataclass(frozen=True, slots=True)
class Reserved:
    """A refund as stored before it is sent."""

    id: str
    payment_id: str
    intent: str
    amount: Money
    parameters: Mapping[str, Any]
    n: int
    tries: int
    key: ScopedKey
    made_at: datetime

    @property
    def stripe_key(self) -> str:
        """Its idempotency key at Stripe."""
        return self.id if self.n == 1 else f"{self.id}.{self.n}"


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
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._owner_of = owner_of
        self._in_request = timedelta(seconds=2 * timeout_s)
        self.work = DurableWork("payments.refunds", self, retry_after=RETRY_AFTER, one_by_one=True)

    async def make(self, request: RefundRequest) -> KeyedReply:
        """Make the refund, or return the reply that its idempotency key got before.

        Raises `NotFound`, `Forbidden`, `NotYourDrive`, `NotPaid`, `RefundExceedsPayment`,
        `CurrencyDiffers`, what a reused key raises, and `Overloaded` where it is not known whose the
        drive is.
        """
        await self._admit(request)
        async with self._database.transaction() as session:
            before = await claim(session, request.key, request.body_hash)
            if before is None:
                reserved = await self._reserve(session, request)
        if before is not None:
            return before.replay(request.body_hash)
        crash_point("payments.refunds.after_reserve")
        sent = await self._send(reserved)
        if isinstance(sent, Unsent):
            log.warning("refund.unknown", refund=reserved.id, reason=sent.reason)
            reply = await self._answer_pending(reserved, sent)
            await self._retry(reserved.id, "unsent", Failure(sent.reason, 1, RETRY_AFTER(1)))
            return KeyedReply(*reply, replayed=False)
        return KeyedReply(*sent, replayed=False)

    async def _admit(self, request: RefundRequest) -> None:
        """Raise unless the caller may refund this; also before a stored answer is given again.

        Outside of the transaction, because pledges may have to be asked.
        """
        async with self._database.reading() as session:
            if request.payment_id is None:
                found = (await session.execute(_WHOSE, {"pledge": request.pledge_id})).first()
            else:
                found = (await session.execute(_WHOSE_PAYMENT, {"payment": request.payment_id})).first()
        if found is None:
            raise NotFound(f"No such {request.named}.")
        if request.test_key and not found.test:
            raise Forbidden("A test key works on test drives only.")
        if request.partner not in (None, found.maker):
            require_owned(request.partner, found.owner or await self._owner_of(found.drive_id))

    async def _reserve(self, session: Transaction, request: RefundRequest) -> Reserved:
        """Take the amount out of what is left, under the payment's lock."""
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
        row, amount = await self._choose(session, paid, request.amount)
        now = self._clock.now()
        refund_id = ids.new("rfd")
        assert row.intent is not None
        try:
            parameters = self._processor.refund_parameters(row.intent, amount, refund_id, request.reason)
        except Refused as error:
            raise Invalid(str(error), errors=[{"pointer": "/amount/value", "detail": str(error)}]) from error
        reserved = Reserved(refund_id, row.id, row.intent, amount, parameters, 1, 0, request.key, now)
        await self._store(session, reserved)
        if request.by is not None:
            await note_refund(session, row.id, refund_id, request.by, request.reason, now)
        return reserved

    async def _choose(
        self, session: Transaction, paid: list[PaymentRow], wanted: Money | None
    ) -> tuple[PaymentRow, Money]:
        """The payment to refund from (a pledge paid twice has two) and how much."""
        lefts = [(row, row.captured - row.refunded - await _unsent(session, row.id)) for row in paid]
        currency = paid[0].paid_currency or ""
        if wanted is not None and wanted.currency != currency:
            detail = f"It was paid in {currency}."
            raise CurrencyDiffers(detail, errors=[{"pointer": "/amount/currency", "detail": detail}])
        for row, left in lefts:
            units = left if wanted is None else wanted.minor_units
            if 0 < units <= left:
                return row, Money(units, currency)
        most = max(left for _, left in lefts)
        raise RefundExceedsPayment(f"{Money(max(most, 0), currency)} is left to refund.")

    async def _store(self, session: Transaction, reserved: Reserved) -> None:
        row = {
            "id": reserved.id,
            "payment_id": reserved.payment_id,
            "intent": reserved.intent,
            "units": reserved.amount.minor_units,
            "currency": reserved.amount.currency,
            "parameters": json.dumps(reserved.parameters),
            "state": "unsent",
            "n": 1,
            "tries": 0,
            "scope": reserved.key.scope,
            "key": reserved.key.key,
            "settled": False,
            "next_try_at": reserved.made_at + self._in_request,
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
                _row(reserved).values(state="sent", stripe_id=observation.id, tries=reserved.tries + 1)
            )
            facts = await read_facts(session, ids=[observation.id])
            return await self._settle(session, reserved, _state(facts[observation.id].observation.rank))

    async def _fail(self, reserved: Reserved, reason: str) -> Reply:
        log.warning("refund.refused", refund=reserved.id, reason=reason)
        async with self._database.transaction() as session:
            await session.execute(_row(reserved).values(state="failed", reason=reason[:2000]))
            return await self._settle(session, reserved, "failed")

    async def _answer_pending(self, reserved: Reserved, unsent: Unsent) -> Reply:
        """Answer the idempotency key of an unsent refund with `pending`; the retries follow."""
        async with self._database.transaction() as session:
            if unsent.new_key:
                # The age of a key counts from its first attempt: with the old time it is never sent.
                values = {"n": reserved.n + 1, "made_at": self._clock.now()}
                await session.execute(_row(reserved).where(REFUNDS.c.state == "unsent").values(values))
            return await self._settle(session, reserved, "pending")

    async def _settle(self, session: Transaction, reserved: Reserved, state: RefundState) -> Reply:
        """Give the idempotency key its answer, once; the answer."""
        amount = as_json(reserved.amount.minor_units, reserved.amount.currency)
        reply = json.dumps({"id": reserved.id, "status": state, "amount": amount}).encode()
        first = await session.execute(
            _row(reserved).where(REFUNDS.c.settled.is_(False)).values(settled=True).returning(REFUNDS.c.id)
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
            reserved = _reserved(row)
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
            await self._settle(session, _reserved(row), _state(facts[row.stripe_id].observation.rank))


def _reserved(row: Row[Any]) -> Reserved:
    return Reserved(
        row.id, row.payment_id, row.intent, Money(row.units, row.currency), json.loads(row.parameters), row.n,
        row.tries, ScopedKey(row.scope, row.key), row.made_at,
    )  # fmt: skip


def _row(reserved: Reserved) -> Any:
    return update(REFUNDS).where(REFUNDS.c.id == reserved.id)


def _state(rank: int) -> RefundState:
    if rank == RefundRank.FAILED:
        return "failed"
    return "succeeded" if rank == RefundRank.SUCCEEDED else "pending"


_DUE: Final = (
    select(REFUNDS)
    .where(REFUNDS.c.next_try_at <= bindparam("now"), text(OWED))
    .order_by(REFUNDS.c.next_try_at)
    .limit(BATCH)
)
_WHO: Final = (
    select(
        PAYMENTS.c.drive_id,
        PAYMENTS.c.partner.label("maker"),
        DRIVES.c.partner.label("owner"),
        DRIVES.c.test,
    )
    .join_from(PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True)
    .order_by(PAYMENTS.c.capture_index)
    .limit(1)
)
_WHOSE: Final = _WHO.where(PAYMENTS.c.pledge_id == bindparam("pledge"))
_WHOSE_PAYMENT: Final = _WHO.where(PAYMENTS.c.id == bindparam("payment"))
"""Who made a pledge and who owns its drive; a drive that is not known is not a test drive."""


async def _unsent(session: Transaction, payment_id: str) -> int:
    """The sum that is reserved and not a fact yet: refunds requested that Stripe has not reported."""
    reserved = await session.execute(
        select(func.coalesce(func.sum(REFUNDS.c.units), 0)).where(
            REFUNDS.c.payment_id == payment_id,
            REFUNDS.c.state == "unsent",
        )
    )
    return int(reserved.scalar_one())


async def unsent_refunds(session: Transaction) -> int:
    """How many refunds have no known outcome yet."""
    counted = select(func.count()).select_from(REFUNDS).where(REFUNDS.c.state == "unsent")
    return int((await session.execute(counted)).scalar_one())
