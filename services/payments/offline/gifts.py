"""Offline gifts: recorded by one key, counted once another approves, and taken out again by two."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, update

from backbone import ids
from backbone.clock import Clock
from backbone.contracts.payments import PaymentStatus
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Invalid
from backbone.idempotency import KeyedReply
from backbone.messaging.outbox import announce
from services.payments.approvals.decisions import Decision
from services.payments.approvals.proposals import KeyedRequest, ProposalKind, Proposals
from services.payments.approvals.requests import past_moment, taken_amount
from services.payments.approvals.states import Status
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup
from services.payments.offline.requests import OfflineGiftRequest, gift_json
from services.payments.offline.tables import OFFLINE_GIFTS
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.recording.restate import announcement_of
from services.payments.recording.rows import PaymentRow, read_payments, write_payments


class OfflineGifts:
    """Records offline gifts; `proposals` takes the decisions about them."""

    def __init__(
        self, database: Database, drives: DriveLookup, creators: CreatorLookup, clock: Clock
    ) -> None:
        kind = ProposalKind(OFFLINE_GIFTS, "offline-gifts", gift_json, move_money)
        self.proposals = Proposals(database, drives, clock, kind)
        self._creators = creators
        self._clock = clock

    async def record(
        self, ref: str, request: OfflineGiftRequest, caller: Caller, keyed: KeyedRequest
    ) -> KeyedReply:
        """Store a gift to be approved. Repeating the key returns the first reply.

        Raises what `Proposals.drive`, `Proposals.record` and `CreatorLookup.find` raise,
        `CurrencyNotAccepted`, `AmountTooLarge` and `Invalid`.
        """
        drive = await self.proposals.drive(ref, caller)
        _refuse_texts(request)
        now = self._clock.now()
        amount = taken_amount(request.amount, drive.currency)
        row: dict[str, Any] = {
            "id": ids.new("ofg"),
            "made_at": now,
            "units": amount.minor_units,
            "currency": amount.currency,
            "method": request.method,
            "received_at": past_moment(request.received_at, now, "received_at"),
            "evidence": request.evidence,
            "creator_id": await self._creators.find(drive.id, request.creator),
            "payment_id": None,
        }
        return await self.proposals.record(drive, row, caller, keyed)


def _refuse_texts(request: OfflineGiftRequest) -> None:
    """Payments stores no texts of donors."""
    for field in ("donor", "message"):
        if getattr(request, field) is not None:
            detail = "names and messages of offline gifts are not stored yet"
            raise Invalid(detail, errors=[{"pointer": f"/{field}", "detail": detail}])


async def move_money(session: Transaction, gift: Row[Any], after: Status, decision: Decision) -> None:
    """Count an approved gift, or take a reversed one out again; other decisions move no money."""
    if after is Status.APPROVED:
        await _count(session, gift, decision)
    elif after is Status.REVERSED:
        await _take_back(session, gift, decision.at)


async def _count(session: Transaction, gift: Row[Any], decision: Decision) -> None:
    """Insert the gift's payment: captured when the money was received, without an intent and facts."""
    payment = PaymentRow(
        id=ids.new("pay"), pledge_id=None, drive_id=gift.drive_id, version=1, status=PaymentStatus.CAPTURED,
        amount=gift.units, currency=gift.currency, creator_id=gift.creator_id,
        partner=decision.caller.partner, captured=gift.units, paid_currency=gift.currency,
        captured_at=gift.received_at, offline=True,
    )  # fmt: skip
    of_gift = update(OFFLINE_GIFTS).where(OFFLINE_GIFTS.c.id == gift.id)
    await session.execute(of_gift.values(payment_id=payment.id))
    posting = NewPosting(ledger.OFFLINE_CLEARING, ledger.RAISED, gift.units, gift.currency, f"{gift.id}#1")
    await _store(session, payment, posting, decision.at, new=True)


async def _take_back(session: Transaction, gift: Row[Any], at: datetime) -> None:
    """Reverse the posting of a gift; of its payment nothing is left."""
    payment = (await read_payments(session, ids=[gift.payment_id]))[gift.payment_id]
    payment.version += 1
    payment.status, payment.refunded = PaymentStatus.REFUNDED, payment.captured
    posting = NewPosting(ledger.RAISED, ledger.OFFLINE_CLEARING, gift.units, gift.currency, f"{gift.id}#2")
    await _store(session, payment, posting, at, new=False)


async def _store(
    session: Transaction, payment: PaymentRow, posting: NewPosting, at: datetime, *, new: bool
) -> None:
    inserted = frozenset((payment.id,)) if new else frozenset[str]()
    await write_payments(session, [payment], inserted, at)
    await ledger.post(session, [(posting, payment.id, payment.drive_id)], at)
    await announce(session, [announcement_of(payment, at)])
