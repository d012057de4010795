"""Requests, decisions of persons, and rounds of work."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from backbone.clock import rfc3339
from backbone.http.caller import Caller
from backbone.http.problems import Problem
from backbone.idempotency import ScopedKey
from backbone.money import Money
from services.payments.approvals.proposals import KeyedRequest
from services.payments.approvals.states import Action
from services.payments.disbursements.commands import DisbursementExceedsBalance
from services.payments.disbursements.requests import DisbursementRequest
from services.payments.holding.decisions import DecidedBy
from services.payments.holding.release import DriveDoesNotMatch, PaymentNotHeld, ReleaseRequest
from services.payments.offline.requests import OfflineGiftRequest
from services.payments.processor import Movement
from services.payments.refunds import RefundExceedsPayment, RefundRequest
from services.payments.settlement.record import place_waiting, record_movements
from tests.payments.life.model import (
    OTHER,
    PENDING,
    SHARES,
    SUCCEEDED,
    TAKES_ZAKAT,
    Disbursement,
    Offline,
    Pool,
)
from tests.payments.life.process import CRASHES, KNOWN_DRIVES, ONE_KEY, PICKED, START, TOLD, UNITS, Process
from tests.payments.matching.gifts import add_pool
from tests.rounds import run_round


class Decisions(Process):
    """Rules: refunds through our API, releases, pools, offline gifts, disbursements and fees."""

    # Refunds through our API

    @precondition(lambda self: self.life.captures)
    @rule(
        picked=PICKED,
        units=st.one_of(st.none(), UNITS),
        outcome=st.sampled_from([SUCCEEDED, SUCCEEDED, PENDING, "lost", "unreachable"]),
        crash=CRASHES,
    )
    def refund(self, picked: int, units: int | None, outcome: str, crash: int | None) -> None:
        intent = self.payment(picked)
        assert intent is not None
        currency = self.life.captures[intent].currency
        wanted = None if units is None else Money(units, currency)
        self.requests += 1
        key = ScopedKey("charity:payment-refunds", f"key-{self.requests}")
        by = DecidedBy("key_a", "charity")
        request = RefundRequest(None, None, wanted, None, key, "hash", payment_id=self.row(intent).id, by=by)
        left = self.life.left(intent)
        self.processor.outcome = outcome
        before = set(self.account.refunds)
        committed, result = self.attempt(self.refund_service.make(request), crash)
        if not 0 < (left if units is None else units) <= left:
            assert isinstance(result, RefundExceedsPayment) or crash
            assert not committed
            return
        if committed == 0:
            return
        assert not isinstance(result, Problem)
        asked = left if units is None else units
        if self.life.captures[intent].units - left + asked > ONE_KEY:
            assert committed == 1 and set(self.account.refunds) == before
            self.life.waiting[self._newest_refund()] = (intent, asked)
            return
        self.see_sent(intent, asked, self._newest_refund(), before, committed, outcome)

    def see_sent(
        self, intent: str, asked: int, ours: str, before: set[str], committed: int, outcome: str
    ) -> None:
        """What the model knows of a refund that was sent, in `committed` transactions."""
        made = [each for name, each in self.account.refunds.items() if name not in before]
        assert not made or made[0].ours == ours
        is_recorded = committed >= 2 and outcome in (SUCCEEDED, PENDING)
        if is_recorded and made:
            with self.life.transaction():
                self.life.see_refund(made[0].name, intent, asked, made[0].status)
        elif not (is_recorded or (committed >= 2 and self._is_refused(ours))):
            self.life.unsent[ours] = (intent, asked)

    def _newest_refund(self) -> str:
        rows = self.rows("SELECT id FROM refunds ORDER BY rowid DESC LIMIT 1")
        return str(rows[0][0])

    def _is_refused(self, ours: str) -> bool:
        return bool(self.rows(f"SELECT 1 FROM refunds WHERE id = '{ours}' AND state = 'failed'"))

    @precondition(lambda self: self.life.unsent)
    @rule(crash=CRASHES)
    def retry_refunds(self, crash: int | None) -> None:
        """A minute later, what was not sent or answered is sent again; after a crash once more."""
        self.processor.outcome = SUCCEEDED
        for at in (crash, None, None):
            self.clock.move(120)
            self.attempt(run_round(self.refund_service), at)
        made = {each.ours: each for each in self.account.refunds.values()}
        for ours, (intent, units) in list(self.life.unsent.items()):
            with self.life.transaction():
                if (refund := made.get(ours)) is not None:
                    self.life.see_refund(refund.name, intent, units, refund.status)
                del self.life.unsent[ours]

    # Decisions of persons

    @precondition(lambda self: any(map(self.life.held, self.life.captures)))
    @rule(picked=PICKED, drive=st.sampled_from([0, 1]), is_held=TOLD, crash=CRASHES)
    def release(self, picked: int, drive: int, is_held: bool, crash: int | None) -> None:
        known = [each for each in self.life.captures if self.life.held(each) or not is_held]
        intent = known[-1 - picked % len(known)]
        request = ReleaseRequest(
            self.row(intent).id, self.drives[drive].drive_id, None, False, "checked", ADMIN, None, "hash"
        )
        committed, result = self.attempt(self.releases.release(request), crash)
        if not self.life.held(intent):
            assert isinstance(result, PaymentNotHeld) or crash
        elif not self._is_countable(intent) or self._is_refused_as_zakat(intent, drive):
            assert isinstance(result, DriveDoesNotMatch) or crash
        elif committed:
            with self.life.transaction():
                self.life.released[intent] = drive
            return
        assert not committed

    def _is_countable(self, intent: str) -> bool:
        currency = self.life.captures[intent].currency
        return currency == "USD" or (currency == OTHER and self.life.is_convertible(intent))

    def _is_refused_as_zakat(self, intent: str, drive: int) -> bool:
        is_zakat = self.life.fund(intent) == "zakat"
        return is_zakat and drive not in TAKES_ZAKAT and drive != self.life.drive(intent)

    @rule(
        drive=KNOWN_DRIVES,
        cap=st.sampled_from([700, 2_500, 10_000]),
        ratio=st.sampled_from([3_333, 10_000, 25_000]),
        per_gift_cap=st.sampled_from([None, None, 400]),
        start=st.sampled_from([-1_000, -1_000, 0, 5]),
        end=st.sampled_from([None, None, None, 9]),
    )
    def add_pool(
        self, drive: int, cap: int, ratio: int, per_gift_cap: int | None, start: int, end: int | None
    ) -> None:
        if len(self.pools) >= 4:
            return
        self.clock.move(1)
        now = self.account.now
        pool = Pool(drive, cap, ratio, per_gift_cap, now + start, None if end is None else now + end)
        self.life.pools.append(pool)
        self.pools.append(
            self.run(
                add_pool(
                    self.books, self.drives[drive].drive_id, cap, ratio, per_gift_cap=per_gift_cap,
                    starts_at=_moment(pool.starts_at),
                    ends_at=None if pool.ends_at is None else _moment(pool.ends_at),
                )
            )
        )  # fmt: skip

    @precondition(lambda self: self.pools)
    @rule(picked=PICKED, crash=CRASHES)
    def end_pool(self, picked: int, crash: int | None) -> None:
        number = len(self.pools) - 1 - picked % len(self.pools)
        pool = self.life.pools[number]
        committed, _ = self.attempt(self.matching.end(self.pools[number], ADMIN), crash)
        now = self.account.now
        if committed:
            pool.ends_at = now if pool.ends_at is None else min(pool.ends_at, now)

    @rule(drive=KNOWN_DRIVES, units=UNITS, is_approved=TOLD, crash=CRASHES)
    def record_offline_gift(self, drive: int, units: int, is_approved: bool, crash: int | None) -> None:
        request = OfflineGiftRequest.model_validate(
            {"amount": _money(units), "method": "cash", "received_at": self._now(), "evidence": "x"}
        )
        recorded = self.offline_gifts.record(f"drive-{drive}", request, _caller("key_a"), self._keyed())
        committed, _ = self.attempt(recorded, crash)
        if committed:
            found = self.rows("SELECT id FROM offline_gifts ORDER BY rowid DESC LIMIT 1")
            self.gifts.append(str(found[0][0]))
            self.life.offline.append(Offline(drive, units))
            if is_approved:
                self.decide_offline_gift(0, "approve", None)

    @precondition(lambda self: self.gifts)
    @rule(picked=PICKED, action=st.sampled_from(["approve", "reverse", "reverse", "reject"]), crash=CRASHES)
    def decide_offline_gift(self, picked: int, action: str, crash: int | None) -> None:
        number = len(self.gifts) - 1 - picked % len(self.gifts)
        self._decide(self.offline_gifts, self.gifts[number], self.life.offline[number], action, crash)

    @rule(
        drive=KNOWN_DRIVES,
        name=st.sampled_from(list(SHARES)),
        units=st.one_of(st.none(), UNITS),
        is_approved=TOLD,
        crash=CRASHES,
        fund=st.sampled_from([None, "general", "zakat", "zakat"]),
    )
    def record_disbursement(
        self, drive: int, name: str, units: int | None, is_approved: bool, crash: int | None, fund: str | None
    ) -> None:
        """Record what may be paid (None), or another amount; without a fund it is the general one."""
        owed = min(self.life.owed(drive, name), self.life.left_in(drive, fund or "general"))
        units = owed if units is None else units
        if units == 0:
            return
        given = {"beneficiary": name, "amount": _money(units), "paid_at": self._now(), "reference": "4"}
        given |= {} if fund is None else {"fund": fund}
        request = DisbursementRequest.model_validate({**given, "evidence": "x"})
        recorded = self.paid_out.record(f"drive-{drive}", request, _caller("key_a"), self._keyed())
        committed, result = self.attempt(recorded, crash)
        if units > owed:
            assert isinstance(result, DisbursementExceedsBalance) or crash
            assert not committed
        elif committed:
            found = self.rows("SELECT id FROM disbursements ORDER BY rowid DESC LIMIT 1")
            self.disbursements.append(str(found[0][0]))
            self.life.disbursed.append(Disbursement(drive, name, units, fund or "general"))
            if is_approved:
                self.decide_disbursement(0, "approve", None)

    @precondition(lambda self: self.disbursements)
    @rule(picked=PICKED, action=st.sampled_from(["approve", "reverse", "reverse", "reject"]), crash=CRASHES)
    def decide_disbursement(self, picked: int, action: str, crash: int | None) -> None:
        number = len(self.disbursements) - 1 - picked % len(self.disbursements)
        one = self.life.disbursed[number]
        exceeds = (
            action == "approve"
            and one.status == "pending"
            and one.units
            > min(self.life.owed(one.drive, one.beneficiary), self.life.left_in(one.drive, one.fund))
        )
        self._decide(self.paid_out, self.disbursements[number], one, action, crash, refused=exceeds)

    def _decide(
        self,
        service: Any,
        proposal: str,
        known: Any,
        action: str,
        crash: int | None,
        *,
        refused: bool = False,
    ) -> None:
        """Decide by the key that did not ask; what the state does not allow changes nothing."""
        key = "key_c" if known.status == "reversal_requested" else "key_b"
        deciding = service.proposals.decide(proposal, Action(action), _caller(key), None)
        committed, result = self.attempt(deciding, crash)
        after = _AFTER.get((known.status, action))
        if refused or after is None:
            assert crash or refused is isinstance(result, DisbursementExceedsBalance)
        if committed and after is not None and not isinstance(result, Problem):
            assert not refused
            known.status = after

    def _now(self) -> str:
        return rfc3339(self.clock.now())

    def _keyed(self) -> KeyedRequest:
        self.requests += 1
        return KeyedRequest(f"key-{self.requests}", b"")

    # Fees

    @precondition(lambda self: self.account.captures)
    @rule(picked=PICKED, fee=st.sampled_from([30, 59, -30]), is_held=TOLD, crash=CRASHES)
    def read_fee(self, picked: int, fee: int, is_held: bool, crash: int | None) -> None:
        """Read the balance transaction of a payment, known or not; preferably of one that may move."""
        held = [each for each in self.life.captures if is_held and self.life.held(each)]
        captures = held or list(self.account.captures)
        intent = captures[-1 - picked % len(captures)]
        name = f"txn_{len(self.life.fees) + 1}"
        currency = self.account.captures[intent].currency
        movement = Movement(
            name, "charge", "ch_1", intent, 100, fee, currency, None, self.clock.now(), self.clock.now()
        )

        async def read() -> None:
            async with self.database.transaction() as session:
                await record_movements(session, [movement, movement], self.clock.now())

        committed, _ = self.attempt(read(), crash)
        if committed:
            self.life.fees[name] = (intent, fee)
            if intent in self.life.captures:
                self.life.placed.add(name)

    @precondition(lambda self: len(self.life.placed) < len(self.life.fees))
    @rule(crash=CRASHES)
    def place_fees(self, crash: int | None) -> None:
        self.clock.move(2 * 86_400)

        async def place_all() -> None:
            async with self.database.transaction() as session:
                await place_waiting(session, self.clock.now())

        committed, _ = self.attempt(place_all(), crash)
        if committed:
            known = {name for name, (intent, _) in self.life.fees.items() if intent in self.life.captures}
            self.life.placed |= known


ADMIN = Caller("default", frozenset(("admin",)), "live", "key_of_an_admin")
_AFTER = {
    ("pending", "approve"): "approved",
    ("pending", "reject"): "rejected",
    ("approved", "reverse"): "reversal_requested",
    ("reversal_requested", "reverse"): "reversed",
}


def _caller(key: str) -> Caller:
    return Caller("charity", frozenset(("offline", "ledger")), "live", key)


def _money(units: int) -> Any:
    return {"currency": "USD", "value": f"{units // 100}.{units % 100:02d}"}


def _moment(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds - int(START.timestamp()))
