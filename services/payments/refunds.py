"""Refunds asked for through our API: reserved under the payment's lock, stored, then sent.

They meet Stripe's webhooks from both sides: the answer and the webhook tell the same fact (`re_…`),
and its metadata ties it to our row (docs/architecture.md, "Stripe"). A crash at
any line neither loses nor doubles one: it is sent again under the same key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import structlog
from sqlalchemy import Row, bindparam, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone import ids
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.http.caller import require_owned
from backbone.http.problems import Conflict, Forbidden, Invalid, NotFound
from backbone.idempotency import KeyedReply, ScopedKey, claim, complete
from backbone.money import Money, as_json
from services.payments.domain import Observation, RefundRank
from services.payments.processor import Processor, ProcessorError, Refused, Unknown
from services.payments.recording.record import record
from services.payments.recording.rows import PaymentRow, read_facts, read_payments
from services.payments.stripe.objects import clean
from services.payments.tables import DRIVES, FACTS, OWED, PAYMENTS, REFUNDS
from services.payments.wakeups import wait_for

POLL_S: Final = 0.5
BATCH: Final = 20
LONGEST_PAUSE_S: Final = 60.0
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
    """Give back `amount` of what was paid on a pledge, all that is left where it is None."""

    pledge_id: str
    partner: str | None  # None: any partner's (the installation's own key)
    amount: Money | None
    reason: str | None
    key: ScopedKey
    body_hash: str
    test_key: bool = False


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


OwnerOf = Callable[[str], Awaitable[str | None]]
"""Asks whose a drive is, where no event has said so."""


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

    async def make(self, request: RefundRequest) -> KeyedReply:
        """Make the refund, or return the reply that its idempotency key got before.

        Raises `NotFound`, `Forbidden`, `NotYourDrive`, `NotPaid`, `RefundExceedsPayment`,
        `CurrencyDiffers`, what a reused key raises, and `Overloaded` where nobody can say whose the
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
        return KeyedReply(*await self._send(reserved), replayed=False)

    async def _admit(self, request: RefundRequest) -> None:
        """Raise unless the caller may refund this pledge; also before a stored answer is given again.

        Outside of the transaction, because pledges may have to be asked.
        """
        async with self._database.reading() as session:
            found = (await session.execute(_WHOSE, {"pledge": request.pledge_id})).first()
        if found is None:
            raise NotFound("No such pledge.")
        if request.test_key and not found.test:
            raise Forbidden("A test key works on test drives only.")
        if request.partner not in (None, found.maker):
            require_owned(request.partner, found.owner or await self._owner_of(found.drive_id))

    async def _reserve(self, session: AsyncSession, request: RefundRequest) -> Reserved:
        """Take the amount out of what is left, under the payment's lock."""
        rows = await read_payments(session, PAYMENTS.c.pledge_id == request.pledge_id)
        paid = [row for row in rows.values() if row.captured]
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
        return reserved

    async def _choose(
        self, session: AsyncSession, paid: list[PaymentRow], wanted: Money | None
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

    async def _store(self, session: AsyncSession, reserved: Reserved) -> None:
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

    async def _send(self, reserved: Reserved) -> tuple[int, bytes]:
        """Send a refund and record what came of it; the answer for whoever asked."""
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
        return await self._later(reserved, str(unknown))

    async def _look_up(self, reserved: Reserved) -> tuple[int, bytes]:
        """The key answers with a stored error for ever: the list of refunds says what happened."""
        try:
            listed = await self._processor.list_refunds(reserved.intent)
        except ProcessorError as error:
            return await self._later(reserved, str(error))
        found = next((each for each in listed if each.refund_id == reserved.id), None)
        if found is not None:
            return await self._record(reserved, found)
        if self._clock.now() - reserved.made_at < SETTLED_AFTER:
            return await self._later(reserved, "not listed yet")
        return await self._later(reserved, "a stored error; nothing was refunded", new_key=True)

    async def _record(self, reserved: Reserved, observation: Observation) -> tuple[int, bytes]:
        async with self._database.transaction() as session:
            await record(session, [observation], self._clock.now())
            await session.execute(
                _row(reserved).values(state="sent", stripe_id=observation.id, tries=reserved.tries + 1)
            )
            facts = await read_facts(session, FACTS.c.id == observation.id)
            return await self._settle(session, reserved, _state(facts[observation.id].observation.rank))

    async def _fail(self, reserved: Reserved, reason: str) -> tuple[int, bytes]:
        log.warning("refund.refused", refund=reserved.id, reason=reason)
        async with self._database.transaction() as session:
            await session.execute(_row(reserved).values(state="failed", reason=reason[:2000]))
            return await self._settle(session, reserved, "failed")

    async def _later(self, reserved: Reserved, reason: str, *, new_key: bool = False) -> tuple[int, bytes]:
        """Leave a refund to the retries; whoever asked is told that it is pending."""
        tries = reserved.tries + 1
        log.warning("refund.unknown", refund=reserved.id, tries=tries, reason=reason)
        async with self._database.transaction() as session:
            values = {
                "tries": tries,
                "reason": reason[:2000],
                "next_try_at": self._clock.now() + _pause(tries),
            }
            if new_key:
                # A key's age counts from its own beginning: one of before would never be sent.
                values |= {"n": reserved.n + 1, "made_at": self._clock.now()}
            await session.execute(_row(reserved).where(REFUNDS.c.state == "unsent").values(values))
            return await self._settle(session, reserved, "pending")

    async def _settle(
        self, session: AsyncSession, reserved: Reserved, state: RefundState
    ) -> tuple[int, bytes]:
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
        while not stop.is_set():
            if not await self.send_due():
                await wait_for(stop, POLL_S)

    async def send_due(self) -> int:
        """Send the unsent refunds that are due; how many there were.

        One whose webhook came before its answer could be recorded only owes its asker an answer.
        """
        due = (
            select(REFUNDS)
            .where(REFUNDS.c.next_try_at <= self._clock.now(), text(OWED))
            .order_by(REFUNDS.c.next_try_at)
            .limit(BATCH)
        )
        async with self._database.reading() as session:
            rows = (await session.execute(due)).all()
        for row in rows:
            try:
                await (self._send(_reserved(row)) if row.state == "unsent" else self._answer_late(row))
            except Exception as error:
                if is_transient(error):
                    raise
                # It would end the worker, again at each start, and no refund behind it would be sent.
                log.exception("refund.failed", refund=row.id, error=type(error).__name__)
                await self._postpone(row, error)
        return len(rows)

    async def _postpone(self, row: Row[Any], error: Exception) -> None:
        """Put a refund that cannot be recorded behind the others; it is tried each minute at last."""
        tries = row.tries + 1
        reason = clean(f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"[:2000])
        async with self._database.transaction() as session:
            await session.execute(
                update(REFUNDS)
                .where(REFUNDS.c.id == row.id)
                .values(tries=tries, reason=reason, next_try_at=self._clock.now() + _pause(tries))
            )

    async def _answer_late(self, row: Row[Any]) -> None:
        async with self._database.transaction() as session:
            facts = await read_facts(session, FACTS.c.id == row.stripe_id)
            await self._settle(session, _reserved(row), _state(facts[row.stripe_id].observation.rank))


def _reserved(row: Row[Any]) -> Reserved:
    return Reserved(
        row.id, row.payment_id, row.intent, Money(row.units, row.currency), json.loads(row.parameters), row.n,
        row.tries, ScopedKey(row.scope, row.key), row.made_at,
    )  # fmt: skip


def _pause(tries: int) -> timedelta:
    return timedelta(seconds=min(0.5 * 2.0 ** min(tries, 10), LONGEST_PAUSE_S))


def _row(reserved: Reserved) -> Any:
    return update(REFUNDS).where(REFUNDS.c.id == reserved.id)


def _state(rank: int) -> RefundState:
    if rank == RefundRank.FAILED:
        return "failed"
    return "succeeded" if rank == RefundRank.SUCCEEDED else "pending"


_WHOSE: Final = (
    select(
        PAYMENTS.c.drive_id,
        PAYMENTS.c.partner.label("maker"),
        DRIVES.c.partner.label("owner"),
        DRIVES.c.test,
    )
    .join_from(PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True)
    .where(PAYMENTS.c.pledge_id == bindparam("pledge"))
    .order_by(PAYMENTS.c.capture_index)
    .limit(1)
)
"""Who made a pledge and who owns its drive; a drive that is not known is not a test drive."""


async def _unsent(session: AsyncSession, payment_id: str) -> int:
    """What is reserved and no fact yet: refunds asked for that Stripe has not told of."""
    reserved = await session.execute(
        select(func.coalesce(func.sum(REFUNDS.c.units), 0)).where(
            REFUNDS.c.payment_id == payment_id,
            REFUNDS.c.state == "unsent",
        )
    )
    return int(reserved.scalar_one())


async def unsent_refunds(session: AsyncSession) -> int:
    """How many refunds have no known outcome yet."""
    counted = select(func.count()).select_from(REFUNDS).where(REFUNDS.c.state == "unsent")
    return (await session.execute(counted)).scalar_one()
