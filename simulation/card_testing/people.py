"""Who gives in a simulated drive, and who attacks it. Everything is drawn from a seed.

Donors come at a constant mean rate. Most have an address of their own; others share one with a school, an
office or a mobile network. Some cards are declined, and most of these donors try again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

AMOUNTS: Final = ((1, 5, 0.25), (6, 10, 0.20), (20, 30, 0.25), (50, 100, 0.30))
"""Ranges of whole dollars, and the part of donors that gives so much."""

CARRIERS: Final = 120
SCHOOLS: Final = 60
SHARE_OF_CARRIERS: Final = 0.25
SHARE_OF_SCHOOLS: Final = 0.10
SHARE_OF_IPV6: Final = 0.15

DECLINED_FIRST: Final = 0.08
DECLINED_AGAIN: Final = 0.35
TRIES_AGAIN: Final = 0.70
MOST_TRIES: Final = 4
BEGINS_ANEW: Final = 0.60
"""The part of donors who make another pledge after their checkout was expired."""


@dataclass(frozen=True, slots=True)
class Donor:
    """A donor: when they send the form, from where, how much, and how each of their tries ends.

    `outcomes` has True for a charged try; the tries end with the first of these, or when they give up.
    """

    at: float
    address: str
    dollars: int
    outcomes: tuple[bool, ...]
    pauses: tuple[float, ...]
    begins_anew: bool


def donors(
    random: Random, per_s: float, seconds: float, outage: float = 0.0, outage_from: float = 0.0
) -> Iterator[Donor]:
    """The donors of a drive. From a time on, the bank of a part `outage` of the cards declines everything."""
    at = 0.0
    while (at := at + random.expovariate(per_s)) < seconds:
        outcomes = _outcomes(random, outage if at >= outage_from else 0.0)
        pauses = (random.uniform(15, 90), *(random.uniform(8, 40) for _ in outcomes[1:]))
        yield Donor(at, _address(random), _dollars(random), outcomes, pauses, random.random() < BEGINS_ANEW)


def carrier(number: int) -> str:
    """A public address of a mobile network, shared by many."""
    return f"31.7.{number // 200}.{number % 200 + 1}"


def attackers_address(number: int) -> str:
    """An address that only the attacker has."""
    return f"45.{number // 40_000 + 9}.{number // 200 % 200}.{number % 200 + 1}"


def _outcomes(random: Random, outage: float) -> tuple[bool, ...]:
    if random.random() < outage:
        return (False,) * random.randint(1, 3)
    outcomes = [random.random() >= DECLINED_FIRST]
    while not outcomes[-1] and len(outcomes) < MOST_TRIES and random.random() < TRIES_AGAIN:
        outcomes.append(random.random() >= DECLINED_AGAIN)
    return tuple(outcomes)


def _dollars(random: Random) -> int:
    low, high, _ = random.choices(AMOUNTS, [part for *_, part in AMOUNTS])[0]
    return random.randint(low, high)


def _address(random: Random) -> str:
    draw = random.random()
    if draw < SHARE_OF_CARRIERS:
        return carrier(min(int(random.expovariate(4 / CARRIERS)), CARRIERS - 1))
    if (draw := draw - SHARE_OF_CARRIERS) < SHARE_OF_SCHOOLS:
        return f"62.4.0.{random.randrange(SCHOOLS) + 1}"
    if draw - SHARE_OF_SCHOOLS < SHARE_OF_IPV6:
        return f"2a02:{random.getrandbits(16):x}:{random.getrandbits(16):x}:{random.getrandbits(16):x}::7"
    return ".".join(
        str(part) for part in (80 + random.randrange(10), *(random.randrange(1, 255) for _ in "abc"))
    )
