"""Disbursements: recorded by one key, paid out once another approves, and taken back by two.

What is owed is checked when one is recorded, and again under the drive's lock when it is approved.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, bindparam, select, text, update

from backbone import ids
from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from backbone.http.problems import Conflict, Invalid, Overloaded
from backbone.idempotency import KeyedReply
from backbone.money import Money
from services.payments.approvals.decisions import Decision
from services.payments.approvals.proposals import KeyedRequest, ProposalKind, Proposals
from services.payments.approvals.requests import past_moment, taken_amount
from services.payments.approvals.states import Status
from services.payments.disbursements.balances import PaidOut, lock_drive, net_of, paid_of, payable
from services.payments.disbursements.requests import DisbursementRequest, disbursement_json, paid_out_json
from services.payments.disbursements.shares import shares_of
from services.payments.disbursements.tables import DISBURSEMENTS, PAID_OUT
from services.payments.drive_lookup import DriveLookup
from services.payments.funds import Fund
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.tables import DRIVES


class DisbursementExceedsBalance(Conflict):
    slug, title = "disbursement-exceeds-balance", "More than the beneficiary is owed"


class Disbursements:
    """Records disbursements; `proposals` takes the decisions about them."""

    def __init__(self, database: Database, drives: DriveLookup, clock: Clock) -> None:
        kind = ProposalKind(DISBURSEMENTS, "disbursements", disbursement_json, move_money)
        self.proposals = Proposals(database, drives, clock, kind)
        self._database = database
        self._drives = drives
        self._clock = clock

    async def record(
        self, ref: str, request: DisbursementRequest, caller: Caller, keyed: KeyedRequest
    ) -> KeyedReply:
        """Store a disbursement to be approved. Repeating the key returns the first reply.

        Raises `DisbursementExceedsBalance`, `CurrencyNotAccepted`, `AmountTooLarge`, `Invalid`, `Overloaded`
        while the drive's beneficiaries are not known here, and what `Proposals.drive` and
        `Proposals.record` raise.
        """
        drive = await self.proposals.drive(ref, caller)
        amount = taken_amount(request.amount, drive.currency)
        await self._drives.store_beneficiaries(drive.id)
        now = self._clock.now()
        row: dict[str, Any] = {
            "id": ids.new("dsb"),
            "made_at": now,
            "beneficiary": request.beneficiary,
            "units": amount.minor_units,
            "currency": amount.currency,
            "paid_at": past_moment(request.paid_at, now, "paid_at"),
            "reference": request.reference,
            "evidence": request.evidence,
            "fund": request.fund,
        }

        async def check(session: Transaction) -> None:
            shares = await _shares(session, drive.id)
            if request.beneficiary not in shares:
                detail = "no such beneficiary of this drive"
                raise Invalid(detail, errors=[{"pointer": "/beneficiary", "detail": detail}])
            paid = await paid_of(session, drive.id)
            to = _Recipient(drive.id, request.beneficiary, Fund(request.fund))
            await _require_owed(session, to, amount, shares, paid)

        return await self.proposals.record(drive, row, caller, keyed, check)

    async def paid_out(self, ref: str, after: str | None, limit: int) -> dict[str, Any]:
        """A page of what was paid out, newest first. Raises what `DriveLookup.find` raises."""
        drive = await self._drives.find(ref)
        values: dict[str, Any] = {"drive": drive.id, "most": limit + 1}
        page = _PAID_OUT
        if after is not None:
            page, values["after"] = _PAID_OUT_AFTER, after
        async with self._database.reading() as session:
            rows = (await session.execute(page, values)).all()
        following = rows[limit - 1].id if len(rows) > limit else None
        return {"data": [paid_out_json(row) for row in rows[:limit]], "next": following}


_PAID_OUT: Final = (
    select(DISBURSEMENTS)
    .where(DISBURSEMENTS.c.drive_id == bindparam("drive"), text(PAID_OUT))
    .order_by(DISBURSEMENTS.c.id.desc())
    .limit(bindparam("most"))
)
_PAID_OUT_AFTER: Final = _PAID_OUT.where(DISBURSEMENTS.c.id < bindparam("after"))
_BENEFICIARIES: Final = select(DRIVES.c.beneficiaries).where(DRIVES.c.id == bindparam("drive"))


async def _shares(session: Transaction, drive_id: str) -> dict[str, int]:
    row = (await session.execute(_BENEFICIARIES, {"drive": drive_id})).first()
    if row is None or row.beneficiaries is None:
        raise Overloaded("The drive's beneficiaries are not known yet.", retry_after_s=2)
    return shares_of(row.beneficiaries)


class _Recipient(NamedTuple):
    """Who is paid for which drive, and from which fund."""

    drive_id: str
    beneficiary: str
    fund: Fund


async def _require_owed(
    session: Transaction, to: _Recipient, amount: Money, shares: dict[str, int], paid: PaidOut
) -> None:
    """Raises `DisbursementExceedsBalance` where the beneficiary is owed less than `amount` now, or the fund
    has less.
    """
    net = await net_of(session, to.drive_id, amount.currency)
    left = payable(net, shares, paid, to.beneficiary, to.fund)
    if amount.minor_units <= left.most:
        return
    if amount.minor_units > left.to_beneficiary:
        raise DisbursementExceedsBalance(f"{Money(left.to_beneficiary, amount.currency)} is owed.")
    raise DisbursementExceedsBalance(
        f"{Money(left.from_fund, amount.currency)} is left in the drive's {to.fund} fund."
    )


async def move_money(session: Transaction, row: Row[Any], after: Status, decision: Decision) -> None:
    """Pay out an approved disbursement, or take a reversed one back; other decisions move no money."""
    if after is Status.APPROVED:
        await _pay_out(session, row, decision.at)
    elif after is Status.REVERSED:
        await _take_back(session, row, decision.at)


async def _pay_out(session: Transaction, row: Row[Any], at: datetime) -> None:
    """Post a disbursement, if it is owed.

    Approvals of one drive wait for each other, so each sees what the others paid out. The decision is stored
    already: its own amount is not to be subtracted from what is owed.
    """
    if not await lock_drive(session, row.drive_id):
        raise Overloaded("The drive is not known yet.", retry_after_s=2)
    shares = await _shares(session, row.drive_id)
    paid = await paid_of(session, row.drive_id)
    paid.add(row.beneficiary, row.fund, -row.units)
    to = _Recipient(row.drive_id, row.beneficiary, Fund(row.fund))
    await _require_owed(session, to, Money(row.units, row.currency), shares, paid)
    payable_account, disbursed = _accounts(row)
    posting = NewPosting(payable_account, disbursed, row.units, row.currency, f"{row.id}#1")
    await ledger.post(session, [(posting, None, row.drive_id)], at)


async def _take_back(session: Transaction, row: Row[Any], at: datetime) -> None:
    """Reverse the posting of a disbursement: what it paid is owed again, and back in its fund."""
    await session.execute(_SET_REVERSED, {"of_id": row.id, "at": at})
    payable_account, disbursed = _accounts(row)
    posting = NewPosting(disbursed, payable_account, row.units, row.currency, f"{row.id}#2")
    await ledger.post(session, [(posting, None, row.drive_id)], at)


def _accounts(row: Row[Any]) -> tuple[str, str]:
    """The two accounts of a disbursement, those of its fund."""
    zakat = row.fund == Fund.ZAKAT
    return (
        ledger.in_fund(ledger.BENEFICIARY_PAYABLE, zakat=zakat),
        ledger.in_fund(ledger.DISBURSED, zakat=zakat),
    )


_SET_REVERSED: Final = (
    update(DISBURSEMENTS).where(DISBURSEMENTS.c.id == bindparam("of_id")).values(reversed_at=bindparam("at"))
)
