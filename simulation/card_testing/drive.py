"""A drive under attack, event by event."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from backbone.http.problems import TooManyRequests
from simulation.card_testing.defence import DRIVE, Defence, VirtualClock
from simulation.card_testing.people import Donor, attackers_address, carrier, donors

WEBHOOK_S: Final = (0.3, 2.0)
"""The least and the most seconds from a try until its webhook is applied."""
STEP_S: Final = 0.5
POLL_S: Final = 1.0
EXPIRES_S: Final = 1.5
"""Seconds from the decision until Stripe has expired the checkout."""
BETWEEN_TRIES_S: Final = 2.0
"""Seconds between two tries of the attacker in one checkout."""
BEGIN: Final = 1_900_000_000.0


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack. `shared` is the part of its addresses that mobile donors use too.

    A `persistent` attacker uses another address at once where one is refused.
    """

    tries: int = 5_000
    per_s: float = 20.0
    addresses: int = 200
    cards_a_session: int = 3
    good: float = 0.04
    shared: float = 0.0
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A drive of `seconds`; the attack, or the outage of a bank (`people.donors`), begins after `calm_s`."""

    seed: int = 1
    gifts_per_s: float = 40.0
    seconds: float = 900.0
    calm_s: float = 300.0
    outage: float = 0.0
    attack: Attack | None = field(default_factory=Attack)
    defended: bool = True


@dataclass(slots=True)
class Outcome:
    """What became of the donors who came after the attack began, and of the attacker's tries."""

    donors: int = 0
    gave: int = 0
    donors_refused: int = 0
    donors_held: int = 0
    donors_expired: int = 0
    tries: int = 0
    authorised: int = 0
    authorised_held: int = 0
    stopped: int = 0
    opened_after_s: float | None = None
    open_s: float = 0.0

    @property
    def success(self) -> float:
        """The part of donors who gave."""
        return self.gave / self.donors if self.donors else 0.0

    @property
    def false_positives(self) -> int:
        """Donors who were refused or held, or whose checkout was expired."""
        return self.donors_refused + self.donors_held + self.donors_expired


@dataclass(slots=True)
class _Checkout:
    payment: str
    client: str | None
    dollars: int
    open: bool = True
    tried: int = 0
    ready_at: float = 0.0


class SimulatedDrive:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._clock = VirtualClock(BEGIN)
        self._defence = Defence(self._clock, on=plan.defended)
        self._latency = _chance("latency", plan.seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._checkouts: dict[str, _Checkout] = {}
        self._ours: list[_Checkout] = []
        self._address = 0
        self._refused: set[int] = set()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run to the end."""
        plan = self._plan
        people = donors(
            _chance("donors", plan.seed), plan.gifts_per_s, plan.seconds, plan.outage, plan.calm_s
        )
        for donor in people:
            self._at(donor.at, lambda donor=donor: self._arrives(donor))  # type: ignore[misc]
        if plan.attack is not None:
            cards = _chance("cards", plan.seed)
            for number in range(plan.attack.tries):
                good, dollars = cards.random() < plan.attack.good, cards.randint(1, 5)
                at = plan.calm_s + number / plan.attack.per_s
                self._at(at, lambda good=good, dollars=dollars: self._attack(good, dollars))  # type: ignore[misc]
        self._at(STEP_S, self._step)
        self._at(POLL_S, self._poll)
        end = BEGIN + plan.seconds + 300
        while self._due and self._due[0][0] <= end:
            self._clock.at, _, do = heapq.heappop(self._due)
            do()
        return self.outcome

    def _at(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (BEGIN + seconds, next(self._numbers), do))

    def _in(self, seconds: float, do: Callable[[], None]) -> None:
        self._at(self._clock.at - BEGIN + seconds, do)

    def _step(self) -> None:
        for payment in self._defence.step():
            self._in(EXPIRES_S, lambda payment=payment: self._expire(payment))  # type: ignore[misc]
        if self._defence.screening.under_attack(DRIVE):
            self.outcome.open_s += STEP_S
            if self.outcome.opened_after_s is None:
                self.outcome.opened_after_s = self._clock.at - BEGIN - self._plan.calm_s
        self._in(STEP_S, self._step)

    def _poll(self) -> None:
        self._defence.publish()
        self._in(POLL_S, self._poll)

    def _expire(self, payment: str) -> None:
        self._checkouts[payment].open = False

    def _checkout(self, address: str, dollars: int) -> _Checkout:
        """Make a pledge. Raises `TooManyRequests`."""
        client = self._defence.admit(address)
        checkout = _Checkout(f"pay_{next(self._numbers)}", client, dollars)
        self._checkouts[checkout.payment] = checkout
        return checkout

    def _try(self, checkout: _Checkout, card: str, *, good: bool) -> bool:
        """Try a card in an open checkout; whether its capture is held."""
        delay = self._latency.uniform(*WEBHOOK_S)
        held = good and self._defence.is_held(checkout.client, checkout.dollars)
        checkout.open = checkout.open and not good
        self._in(delay, lambda: self._report(checkout, None if good else card, declined=not good))
        return held

    def _report(self, checkout: _Checkout, card: str | None, *, declined: bool) -> None:
        self._defence.note(checkout.payment, checkout.client, card, checkout.dollars, declined=declined)

    # Donors

    def _counts(self, donor: Donor) -> bool:
        return donor.at >= self._plan.calm_s

    def _arrives(self, donor: Donor) -> None:
        self.outcome.donors += self._counts(donor)
        self._pledges(donor, 0)

    def _pledges(self, donor: Donor, tried: int) -> None:
        try:
            checkout = self._checkout(donor.address, donor.dollars)
        except TooManyRequests:
            self.outcome.donors_refused += self._counts(donor)
            return
        self._in(donor.pauses[tried], lambda: self._donor_tries(donor, checkout, tried))

    def _donor_tries(self, donor: Donor, checkout: _Checkout, tried: int) -> None:
        if not checkout.open:
            self.outcome.donors_expired += self._counts(donor)
            if donor.begins_anew:
                self._pledges(donor, tried)
            return
        good = donor.outcomes[tried]
        held = self._try(checkout, f"donor {donor.at}", good=good)
        self.outcome.gave += good and self._counts(donor)
        self.outcome.donors_held += held and self._counts(donor)
        if not good and tried + 1 < len(donor.outcomes):
            self._in(donor.pauses[tried + 1], lambda: self._donor_tries(donor, checkout, tried + 1))

    # The attacker

    def _attack(self, good: bool, dollars: int) -> None:
        self.outcome.tries += 1
        checkout = self._attackers_checkout(dollars)
        if checkout is None:
            self.outcome.stopped += 1
            return
        checkout.tried += 1
        checkout.ready_at = self._clock.at + BETWEEN_TRIES_S
        held = self._try(checkout, f"stolen {self.outcome.tries}", good=good)
        self.outcome.authorised += good
        self.outcome.authorised_held += held

    def _attackers_checkout(self, dollars: int) -> _Checkout | None:
        """A checkout of the attacker that takes another card, or a new one; None where it is refused."""
        attack, now = self._plan.attack, self._clock.at
        assert attack is not None
        self._ours = [each for each in self._ours if each.open and each.tried < attack.cards_a_session]
        for checkout in self._ours:
            if checkout.ready_at <= now:
                return checkout
        for _ in range(attack.addresses if attack.persistent else 1):
            self._address = (self._address + 1) % attack.addresses
            if self._address in self._refused:
                continue
            try:
                checkout = self._checkout(_address(attack, self._address), dollars)
            except TooManyRequests:
                self._refused.add(self._address)
                continue
            self._ours.append(checkout)
            return checkout
        return None


def _address(attack: Attack, number: int) -> str:
    return carrier(number) if number < attack.shared * attack.addresses else attackers_address(number)


def _chance(name: str, seed: int) -> Random:
    return Random(f"{name} {seed}")  # noqa: S311 - it has to repeat
