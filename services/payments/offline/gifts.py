"""Offline gifts: recorded by one key, counted once another approves, and taken out again by two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, update

from backbone import ids
from backbone.clock import Clock
from backbone.contracts.payments import PaymentStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Conflict, Invalid
from backbone.idempotency import KeyedReply, ScopedKey, hash_body, run_once
from backbone.messaging.outbox import announce
from services.payments.approvals import decisions
from services.payments.approvals.decisions import Decision, Wanted
from services.payments.approvals.requests import past_moment, taken_amount
from services.payments.approvals.states import Action, Status
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.offline.requests import OfflineGiftRequest, gift_json
from services.payments.offline.tables import OFFLINE_GIFTS
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.recording.restate import announcement_of
from services.payments.recording.rows import PaymentRow, read_payments, write_payments


class DriveNotOpened(Conflict):
    slug, title = "drive-not-opened", "The drive was not opened yet"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request's idempotency key, if it has one, and its body as it was sent."""

    key: str | None
    body: bytes

    def scoped(self, caller: Caller, drive: KnownDrive, route: str) -> tuple[ScopedKey | None, str]:
        """The key within the partner's `route`, and the hash of drive and body."""
        key = None if self.key is None else ScopedKey(f"{caller.partner}:{route}", self.key)
        return key, hash_body(drive.id.encode() + b"\n" + self.body)


def require_opened(drive: KnownDrive) -> None:
    """Raises `DriveNotOpened` for a draft. A closed drive takes what was received late."""
    if drive.state == "draft":
        raise DriveNotOpened("Open the drive first.")


class OfflineGifts:
    """Records offline gifts and takes decisions about them."""

    def __init__(
        self, database: Database, drives: DriveLookup, creators: CreatorLookup, clock: Clock
    ) -> None:
        self._database = database
        self._drives = drives
        self._creators = creators
        self._clock = clock

    async def record(
        self, ref: str, request: OfflineGiftRequest, caller: Caller, keyed: KeyedRequest
    ) -> KeyedReply:
        """Store a gift to be approved. Repeating the key returns the first reply.

        Raises what `DriveLookup.find_owned` and `CreatorLookup.find` raise, `DriveNotOpened`,
        `CurrencyNotAccepted`, `AmountTooLarge`, `Invalid`, and what a reused key raises.
        """
        drive = await self._drives.find_owned(ref, caller)
        require_opened(drive)
        _refuse_texts(request)
        now = self._clock.now()
        amount = taken_amount(request.amount, drive.currency)
        row: dict[str, Any] = {
            "id": ids.new("ofg"),
            "drive_id": drive.id,
            "partner": drive.partner,
            "test": drive.test,
            "made_at": now,
            "units": amount.minor_units,
            "currency": amount.currency,
            "method": request.method,
            "received_at": past_moment(request.received_at, now, "received_at"),
            "evidence": request.evidence,
            "creator_id": await self._creators.find(drive.id, request.creator),
            "payment_id": None,
        }

        async def create(session: Transaction) -> bytes:
            await decisions.store(session, OFFLINE_GIFTS, row, caller)
            return json.dumps(await _shown(session, row["id"]), ensure_ascii=False).encode()

        key, body_hash = keyed.scoped(caller, drive, "offline-gifts")
        return await run_once(self._database, key, body_hash, create)

    async def decide(
        self, gift_id: str, action: Action, caller: Caller, reason: str | None
    ) -> dict[str, Any]:
        """Approve, reject or reverse a gift; the gift after it. A repeated decision changes nothing.

        Its payment, the postings and the event are stored in the transaction of the decision. Raises
        `NotFound`, `SecondApproverNeeded`, `NotDecidable`, and what `DriveLookup.find_owned` raises.
        """
        async with self._database.reading() as session:
            found = await decisions.find(session, OFFLINE_GIFTS, gift_id)
        await self._drives.find_owned(found.drive_id, caller)
        decision = Decision(action, caller, self._clock.now(), reason)
        async with self._database.transaction() as session:
            gift = await decisions.find(session, OFFLINE_GIFTS, gift_id, lock=True)
            after = await decisions.decide(session, OFFLINE_GIFTS, gift, decision)
            if after is not Status(gift.status):
                await _move_money(session, gift, after, decision)
                crash_point("payments.offline.before_commit")
            shown = await _shown(session, gift_id)
        crash_point("payments.offline.after_commit")
        return shown

    async def page(self, drive: str | None, caller: Caller, wanted: Wanted) -> dict[str, Any]:
        """A page of gifts, newest first (`decisions.page`). Raises what `DriveLookup.find_owned` raises."""
        if drive is not None:
            wanted = wanted._replace(drive_id=(await self._drives.find_owned(drive, caller)).id)
        async with self._database.reading() as session:
            rows, following = await decisions.page(session, OFFLINE_GIFTS, caller, wanted)
            histories = await decisions.histories(session, [row.id for row in rows])
        return {"data": [gift_json(row, histories.get(row.id, [])) for row in rows], "next": following}


def _refuse_texts(request: OfflineGiftRequest) -> None:
    """Payments stores no texts of donors."""
    for field in ("donor", "message"):
        if getattr(request, field) is not None:
            detail = "names and messages of offline gifts are not stored yet"
            raise Invalid(detail, errors=[{"pointer": f"/{field}", "detail": detail}])


async def _shown(session: Transaction, gift_id: str) -> dict[str, Any]:
    row = await decisions.find(session, OFFLINE_GIFTS, gift_id)
    return gift_json(row, (await decisions.histories(session, [gift_id]))[gift_id])


async def _move_money(session: Transaction, gift: Row[Any], after: Status, decision: Decision) -> None:
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
