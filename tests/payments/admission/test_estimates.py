"""What a donor is told about the queue: neither the position nor the estimate of a ticket ever grows."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.payments.admission.estimates import (
    ASSUMED_RATE,
    FASTEST,
    SLOWEST,
    Estimates,
    HigherRate,
    per_1000_s,
)

RATES = st.integers(SLOWEST - 5, FASTEST + 5) | st.sampled_from([1_000, 10_000, 12_500, 20_000, 25_000])


@dataclass
class Told:
    """A ticket, the rate it was made at, and what its donor was last told."""

    number: int
    rate: int | None
    position: int | None = None
    eta_s: int | None = None


class Queue(RuleBasedStateMachine):
    """Tickets join, leave and are admitted; the rate changes; some are tried a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Estimates(front=0, rate=ASSUMED_RATE)
        self.newest = 0
        self.tickets: list[Told] = []

    @rule(tickets=st.integers(1, 40), others=st.integers(0, 5), stored_without_rate=st.booleans())
    def join(self, tickets: int, others: int, stored_without_rate: bool) -> None:
        """Pledges become tickets; numbers between them go to payments that are none."""
        for _ in range(tickets):
            self.newest += 1
            rate = None if stored_without_rate else self.state.rate
            self.tickets.append(Told(self.newest, rate))
        self.newest += others

    @rule(share=st.floats(0, 1), rate=RATES, late=st.integers(0, 10))
    def admit(self, share: float, rate: int, late: int) -> None:
        """Some of the tickets are admitted; `late` numbers are not visible yet to who notes it."""
        waiting = [each.number for each in self.tickets if each.number > self.state.front]
        front = waiting[round(share * (len(waiting) - 1))] if waiting else self.state.front
        self.state = self.state.advanced(front, rate, max(0, self.newest - late))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), rate=RATES)
    def try_again(self, data: st.DataObject, rate: int) -> None:
        """A ticket that Stripe refused is admitted again: its number is an old one."""
        again = data.draw(st.sampled_from(self.tickets))
        self.state = self.state.advanced(min(again.number, self.state.front), rate, self.newest)

    @invariant()
    def nobody_is_told_more_than_before(self) -> None:
        for each in self.tickets:
            position = self.state.position(each.number)
            eta_s = self.state.eta_seconds(each.number, each.rate)
            assert each.position is None or 0 <= position <= each.position
            assert each.eta_s is None or 0 <= eta_s <= each.eta_s
            assert (eta_s == 0) == (position == 0)
            each.position, each.eta_s = position, eta_s

    @invariant()
    def the_state_stays_small(self) -> None:
        assert len(self.state.higher) <= 62
        up_to = [each.up_to for each in self.state.higher]
        rates = [each.rate for each in self.state.higher]
        assert up_to == sorted(up_to)
        assert rates == sorted(set(rates), reverse=True)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_falling_rate_changes_the_estimates_of_later_tickets_only() -> None:
    before = Estimates(front=0, rate=per_1000_s(20))
    after = before.advanced(20, per_1000_s(10), newest=1_000)
    assert before.eta_seconds(1_000, before.rate) == 50
    assert after.eta_seconds(1_000, before.rate) == 49  # falls more slowly than the clock, and never grows
    assert after.eta_seconds(1_020, after.rate) == 100


def test_a_rising_rate_shortens_the_estimates_of_tickets_made_at_a_lower_one() -> None:
    slow = Estimates(front=0, rate=per_1000_s(1))
    fast = slow.advanced(0, per_1000_s(20), newest=1_000)
    assert slow.eta_seconds(1_000, slow.rate) == 1_000
    assert 50 <= fast.eta_seconds(1_000, slow.rate) <= 63  # a step of 25 % at most below the rate


def test_the_rate_of_a_rise_is_forgotten_with_the_tickets_it_concerned() -> None:
    state = Estimates(0, per_1000_s(20)).advanced(5, per_1000_s(20), newest=10)
    slow = state.advanced(10, per_1000_s(1), newest=11)
    assert slow.eta_seconds(11, slow.rate) == 1
    assert [each.up_to for each in slow.higher] == [11]
    assert slow.higher[0] == HigherRate(11, slow.higher[0].rate)


def test_a_ticket_that_is_tried_again_keeps_its_turn() -> None:
    state = Estimates(front=40, rate=per_1000_s(20))
    assert (state.position(7), state.eta_seconds(7, None)) == (0, 0)
