"""Decisions of a second key about refunds past the threshold."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from backbone.http.caller import Caller
from services.payments.approvals.states import Action, SecondApproverNeeded
from services.payments.refunds import RefundExceedsPayment
from tests.payments.life.decisions import Decisions
from tests.payments.life.model import PENDING, SUCCEEDED
from tests.payments.life.process import CRASHES, PICKED


class DecidedRefunds(Decisions):
    """Rules: a refund that waits is approved and sent, or rejected. `key_a` asked for each of them."""

    @precondition(lambda self: self.life.waiting)
    @rule(
        picked=PICKED,
        action=st.sampled_from(["approve", "approve", "approve", "reject"]),
        key=st.sampled_from(["key_a", "key_b", "key_b", "key_b"]),
        outcome=st.sampled_from([SUCCEEDED, SUCCEEDED, PENDING, "lost", "unreachable"]),
        crash=CRASHES,
    )
    def decide_refund(self, picked: int, action: str, key: str, outcome: str, crash: int | None) -> None:
        waiting = list(self.life.waiting)
        ours = waiting[-1 - picked % len(waiting)]
        intent, units = self.life.waiting[ours]
        # Its own amount is reserved, too: what may leave is not less than nothing without it.
        fits = self.life.left(intent) - self.life.amounts(intent)[2] >= 0
        self.processor.outcome = outcome
        before = set(self.account.refunds)
        caller = Caller("default", frozenset(("admin",)), "live", key)
        deciding = self.large_refunds.decide(ours, Action(action), caller, "checked")
        committed, result = self.attempt(deciding, crash)
        if action == "approve" and (key == "key_a" or not fits):
            refusal = SecondApproverNeeded if key == "key_a" else RefundExceedsPayment
            assert isinstance(result, refusal) or crash
            assert not committed
            assert set(self.account.refunds) == before
        elif committed:
            del self.life.waiting[ours]
            if action == "approve":
                self.see_sent(intent, units, ours, before, committed, outcome)
