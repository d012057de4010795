"""What is decided from the tries of cards, without I/O: open breakers, refused clients, exhausted checkouts.

A client is a group of addresses as the gateway names it: a keyed hash that nobody can reverse, and that
differs each day (gateway/screening/client_groups.py). Behind one address there may be a school or a mobile
network, so a client is refused only where most of its tries were declined, and while no breaker is open only
far past what people do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from backbone.stripe_amounts import smallest
from services.payments.screening.breaker import PAST_S, Breaker

ALL_DRIVES: Final = "all"
"""The scope of the breaker over all drives; the others are named by the drive's id."""

SMALL_FACTOR: Final = 20
"""A small amount is at most this many times the least that Stripe charges: 10 dollars."""

MEMORY_S: Final = PAST_S
"""How long a client's tries and a card's declines are remembered."""
REFUSED_S: Final = 900
"""How long a client is refused. A later decline refuses it again, while those of the past hour suffice."""

DECLINES_UNDER_ATTACK: Final = 3
CAPTURED_FACTOR_UNDER_ATTACK: Final = 2
DECLINES_WHILE_CLOSED: Final = 20
CAPTURED_FACTOR_WHILE_CLOSED: Final = 4
"""A client is refused from so many declines, and so many more for each try that was charged."""

DECLINES_OF_A_CARD: Final = 5
"""A card declined so often within the hour makes the client that tries it once more a suspect."""

DECLINES_TO_HOLD: Final = 2
"""Under attack, a small gift of a client with so many declines is held."""

TRIES_OF_A_CHECKOUT: Final = 10
TRIES_UNDER_ATTACK: Final = 2
"""Declined tries after which a checkout is expired; under attack those of small amounts."""

MAX_CLIENTS: Final = 200_000
"""Clients and cards remembered at once; past it the one that was idle for longest is forgotten."""


class RefusedReason(StrEnum):
    """Why a client is refused."""

    UNDER_ATTACK = "under_attack"
    DECLINES = "declines"
    CARD = "card"


@dataclass(frozen=True, slots=True)
class Try:
    """A card that was tried for a payment at `at` (Unix seconds): declined, or charged.

    `client` and `card` (Stripe's fingerprint) are None where they are unknown.
    """

    at: float
    payment_id: str
    drive_id: str
    client: str | None
    card: str | None
    declined: bool
    small: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A client that is refused until `until` (Unix seconds)."""

    client: str
    until: float
    reason: RefusedReason


@dataclass(slots=True)
class Decisions:
    """What was decided since the last time."""

    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    exhausted: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.opened or self.closed or self.refused or self.exhausted)


def is_small(units: int, currency: str) -> bool:
    """Whether an amount in minor units is so small that it may test a card."""
    return units <= SMALL_FACTOR * smallest(currency)


def is_refusable(declined: int, charged: int, *, under_attack: bool) -> bool:
    """Whether a client with so many tries in the past hour is refused."""
    if under_attack:
        return declined >= DECLINES_UNDER_ATTACK + CAPTURED_FACTOR_UNDER_ATTACK * charged
    return declined >= DECLINES_WHILE_CLOSED + CAPTURED_FACTOR_WHILE_CLOSED * charged


def is_to_be_held(declined: int, charged: int, *, small: bool, under_attack: bool) -> bool:
    """Whether a gift is held whose client had so many other tries in the past hour."""
    enough = declined >= DECLINES_TO_HOLD + CAPTURED_FACTOR_UNDER_ATTACK * charged
    return under_attack and small and enough


@dataclass(slots=True)
class _Tally:
    """The times of declined and of charged tries, in the order they were noted."""

    declined: list[float] = field(default_factory=list)
    charged: list[float] = field(default_factory=list)
    refused_until: float = 0.0

    def forget(self, before: float) -> bool:
        """Forget tries before a time; whether nothing is left."""
        self.declined = [at for at in self.declined if at > before]
        self.charged = [at for at in self.charged if at > before]
        return not (self.declined or self.charged)


class Screening:
    """Notes tries and decides. `check` is to be called about once a second."""

    def __init__(self) -> None:
        self.breakers: dict[str, Breaker] = {}
        self._clients: dict[str, _Tally] = {}
        self._drives_of: dict[str, str] = {}
        self._cards: dict[str, _Tally] = {}
        self._declines: dict[str, tuple[int, float]] = {}
        self._suspects: dict[str, RefusedReason] = {}
        self._exhausted: set[str] = set()
        self._forgotten_at = float("-inf")
        self._restored_at = float("-inf")

    def restore(self, opened: Iterable[tuple[str, float]], now: float) -> None:
        """Breakers that were open when the process ended, with the times at which they were opened.

        Tries from before `now` that are noted afterwards are judged as at their own time: a decline from
        before an attack does not count as one under attack, and one older than a refusal lasts refuses no
        client.
        """
        self._restored_at = now
        for scope, at in opened:
            self.breakers[scope] = Breaker(opened_at=at)

    def under_attack(self, drive: str) -> bool:
        """Whether a breaker that covers this drive is open."""
        return any(breaker.is_open for scope in (ALL_DRIVES, drive) if (breaker := self.breakers.get(scope)))

    def note(self, one: Try) -> None:
        """Count a try."""
        if one.small:
            for scope in (ALL_DRIVES, one.drive_id):
                self.breakers.setdefault(scope, Breaker()).note(one.at, declined=one.declined)
        if one.client is not None:
            tally = _remembered(self._clients, one.client)
            (tally.declined if one.declined else tally.charged).append(one.at)
            self._drives_of[one.client] = one.drive_id
        if one.declined:
            self._note_decline(one)

    def counts(self, client: str, now: float) -> tuple[int, int]:
        """The declined and the charged tries of a client in the past hour."""
        tally = self._clients.get(client)
        if tally is None:
            return 0, 0
        tally.forget(now - MEMORY_S)
        return len(tally.declined), len(tally.charged)

    def check(self, now: float) -> Decisions:
        """Open and close breakers, and decide about the clients and checkouts noted since the last time."""
        found = Decisions()
        for scope, breaker in list(self.breakers.items()):
            if breaker.check(now):
                (found.opened if breaker.is_open else found.closed).append(scope)
            elif breaker.is_idle:
                del self.breakers[scope]
        if now - self._forgotten_at >= 60:
            self._forget(now)
        if found.opened:
            self._suspect_all()
        for client, reason in self._suspects.items():
            self._refuse(client, reason, now, found)
        self._suspects.clear()
        found.exhausted, self._exhausted = self._exhausted, set()
        return found

    def _note_decline(self, one: Try) -> None:
        attacked = self._was_under_attack(one)
        count = self._declines.get(one.payment_id, (0, 0.0))[0] + 1
        self._declines[one.payment_id] = (count, one.at)
        if count >= (TRIES_UNDER_ATTACK if attacked and one.small else TRIES_OF_A_CHECKOUT):
            self._exhausted.add(one.payment_id)
        is_over = one.at <= self._restored_at - REFUSED_S
        if one.client is not None and not is_over:
            self._suspects.setdefault(one.client, RefusedReason.DECLINES)
        if one.card is not None:
            card = _remembered(self._cards, one.card)
            card.declined.append(one.at)
            card.forget(one.at - MEMORY_S)
            if one.client is not None and not is_over and len(card.declined) > DECLINES_OF_A_CARD:
                self._suspects[one.client] = RefusedReason.CARD

    def _was_under_attack(self, one: Try) -> bool:
        """Whether a breaker that covers the try is open; was open then, for one from before `restore`."""
        at = one.at if one.at < self._restored_at else float("inf")
        found = (self.breakers.get(scope) for scope in (ALL_DRIVES, one.drive_id))
        return any(each is not None and each.opened_at is not None and each.opened_at <= at for each in found)

    def _suspect_all(self) -> None:
        """Look at every client again: with an open breaker fewer declines suffice."""
        for client, tally in self._clients.items():
            if len(tally.declined) >= DECLINES_UNDER_ATTACK:
                self._suspects.setdefault(client, RefusedReason.UNDER_ATTACK)

    def _refuse(self, client: str, reason: RefusedReason, now: float, found: Decisions) -> None:
        tally = self._clients.get(client)
        if tally is None or tally.refused_until > now:
            return
        declined, charged = self.counts(client, now)
        attacked = self.under_attack(self._drives_of[client])
        if reason is RefusedReason.CARD:
            refused = declined > CAPTURED_FACTOR_UNDER_ATTACK * charged
        else:
            refused = is_refusable(declined, charged, under_attack=attacked)
            reason = RefusedReason.UNDER_ATTACK if attacked else RefusedReason.DECLINES
        if refused:
            tally.refused_until = now + REFUSED_S
            found.refused.append(Refused(client, tally.refused_until, reason))

    def _forget(self, now: float) -> None:
        """Forget what is older than an hour."""
        before, self._forgotten_at = now - MEMORY_S, now
        for tallies in (self._clients, self._cards):
            for name in [each for each, tally in tallies.items() if tally.forget(before)]:
                del tallies[name]
        self._drives_of = {each: drive for each, drive in self._drives_of.items() if each in self._clients}
        self._declines = {each: known for each, known in self._declines.items() if known[1] > before}


def _remembered(tallies: dict[str, _Tally], name: str) -> _Tally:
    """The tally of a client or card, moved to the end; the first one is forgotten where there are too
    many."""
    tally = tallies.pop(name, None) or _Tally()
    tallies[name] = tally
    if len(tallies) > MAX_CLIENTS:
        del tallies[next(iter(tallies))]
    return tally
