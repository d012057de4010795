"""The decisions of a second key about refunds past the threshold."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import NotFound
from backbone.money import Money
from services.payments.approvals import decisions
from services.payments.approvals.decisions import Decision
from services.payments.approvals.states import Action, NotDecidable, Status
from services.payments.drive_lookup import DriveLookup
from services.payments.large_refunds.queries import Json, WantedRefunds, find_large, page_of_large
from services.payments.large_refunds.tables import LARGE_REFUNDS
from services.payments.large_refunds.views import STATUS_OF, ApprovalState
from services.payments.recording.rows import PaymentRow, read_payments
from services.payments.refund_rows import Reserved, reserved_of, reserved_units
from services.payments.refunds import RefundExceedsPayment, RefundService
from services.payments.tables import REFUNDS


class LargeRefunds:
    """Takes and lists decisions about refunds past the threshold; an approved one is sent by `refunds`."""

    def __init__(self, database: Database, drives: DriveLookup, refunds: RefundService, clock: Clock) -> None:
        self._database = database
        self._drives = drives
        self._refunds = refunds
        self._clock = clock

    async def decide(self, refund_id: str, action: Action, caller: Caller, reason: str | None) -> Json:
        """Approve a refund and send it, or reject it; the refund after it. A repeat changes nothing.

        A rejected refund's amount can be refunded again. Raises `NotFound`, `SecondApproverNeeded`,
        `NotDecidable`, what `RefundService.admit` raises, and `RefundExceedsPayment` where less is left of
        the payment by now: then it still waits.
        """
        async with self._database.reading() as session:
            payment_id = (await session.execute(_PAYMENT_OF, {"refund": refund_id})).scalar()
        if payment_id is None:
            raise NotFound("No such refund waits for a second key.")
        partner = None if caller.admin else caller.partner
        await self._refunds.admit(payment_id, partner, test_key=caller.mode == "test")
        decision = Decision(action, caller, self._clock.now(), reason)
        async with self._database.transaction() as session:
            to_send = await self._decide(session, refund_id, payment_id, decision)
            crash_point("payments.large_refunds.before_commit")
        crash_point("payments.large_refunds.after_commit")
        if to_send is not None:
            await self._refunds.send_now(to_send)
        async with self._database.reading() as session:
            return await find_large(session, refund_id)

    async def page(
        self, drive: str | None, state: ApprovalState | None, caller: Caller, after: str | None, limit: int
    ) -> Json:
        """A page, the newest first: of a drive, or of all that the caller may decide.

        Of a drive that the caller's partner does not own, those of the pledges that it made. Raises what
        `DriveLookup.find` raises.
        """
        partner = None if caller.admin else caller.partner
        found = None if drive is None else await self._drives.find(drive)
        if found is not None and found.partner is not None and found.partner == partner:
            partner = None
        wanted = WantedRefunds(
            drive_id=None if found is None else found.id,
            status=None if state is None else STATUS_OF[state],
            partner=partner,
            test=caller.mode == "test",
            after=after,
            limit=limit,
        )
        async with self._database.reading() as session:
            return await page_of_large(session, wanted)

    async def _decide(
        self, session: Transaction, refund_id: str, payment_id: str, decision: Decision
    ) -> Reserved | None:
        """Store the decision under the payment's lock; the refund, if it is to be sent now."""
        payment = (await read_payments(session, ids=[payment_id]))[payment_id]
        row = await decisions.find(session, LARGE_REFUNDS, refund_id)
        after = await decisions.decide(session, LARGE_REFUNDS, row, decision)
        if after is Status(row.status):
            return None
        refund = await decisions.find(session, REFUNDS, refund_id)
        if refund.state != "unapproved":  # Stripe reported it, for example after a restore of our database
            if after is Status.REJECTED:
                raise NotDecidable("Stripe has this refund already.")
            return None
        if after is Status.REJECTED:
            await _change(session, refund_id, state="failed", reason="rejected")
            return None
        await _require_left(session, payment, refund)
        now = decision.at
        # The age of its key at Stripe counts from now on.
        values: dict[str, Any] = {"made_at": now, "next_try_at": self._refunds.first_retry_at(now)}
        await _change(session, refund_id, state="unsent", **values)
        return reserved_of(await decisions.find(session, REFUNDS, refund_id))


async def _require_left(session: Transaction, payment: PaymentRow, refund: Row[Any]) -> None:
    """Raise unless so much is left that nobody else gave back, disputes or has reserved."""
    others = await reserved_units(session, payment.id) - refund.units
    left = payment.captured - payment.refunded - payment.disputed - others
    if refund.units > left:
        currency = refund.currency
        raise RefundExceedsPayment(f"{Money(max(left, 0), currency)} is left to refund.")


async def _change(session: Transaction, refund_id: str, **values: Any) -> None:
    await session.execute(update(REFUNDS).where(REFUNDS.c.id == refund_id).values(values))


_PAYMENT_OF: Final = select(LARGE_REFUNDS.c.payment_id).where(LARGE_REFUNDS.c.id == bindparam("refund"))
