"""When donations arrive and how large they are: an 11-million-dollar drive in less than a minute.

Modelled on the cumulative donors of "Let's make their winter warmer" (January 2022), a burst as at the
marathon AGDQ 2019, and a fitted distribution of amounts. Equal seeds give equal plans.
"""

import bisect
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rehearsal.amounts import LARGEST_GIFT_CENTS

DRIVE_HOURS: Final = 268.24
DONORS_BY_HOUR: Final = ((0.0, 0), (24.0, 7_900), (120.0, 42_600), (150.0, 97_000), (DRIVE_HOURS, 155_065))
"""Hour and cumulative donors: published dollars over the mean donation (47 dollars for the first 97,000)."""

INSTITUTION_GIFT_CENTS: Final = LARGEST_GIFT_CENTS
INSTITUTIONS: Final = 12
INSTITUTIONS_TOTAL_CENTS: Final = 200_000_000

BURST_AT: Final = 0.62
BURST_HEIGHT: Final = 2.6
BURST_DECAY: Final = 0.06
SLOTS: Final = 400

_MENU_CENTS: Final = (500, 1_000, 2_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)
_SNAPPED_SHARE: Final = 0.74
_PARETO_SHARE: Final = 0.012

Size = Callable[[random.Random], int]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One donation of the curve: seconds after the start, and cents."""

    at_s: float
    amount_cents: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rehearsal replays: the curve's arrivals in order, then donations of `rush_size` at full speed.

    `institutions` are the positions in `arrivals` of the donations that institutions make.
    """

    title: str
    arrivals: Sequence[Arrival]
    rush_size: Size
    institutions: frozenset[int]


def winter(gifts: int, seconds: float, seed: int) -> Plan:
    """The drive's curve with exactly `gifts` arrivals in `seconds`."""
    rng = random.Random(seed)  # noqa: S311 - a script, not a secret
    times = spread(gifts, seconds, _slot_weights(rng), rng)
    amounts = [gift_size(rng) for _ in range(gifts)]
    institutions = _institutions(gifts)
    for position, cents in institutions.items():
        amounts[position] = cents
    arrivals = tuple(map(Arrival, times, amounts))
    return Plan("the winter drive of January 2022", arrivals, gift_size, frozenset(institutions))


def spread(count: int, seconds: float, weights: Sequence[float], rng: random.Random) -> list[float]:
    """`count` ascending times in [0, seconds), distributed by `weights`, one for each slot of equal length.

    Systematic sampling: every interval gets its share to within one donation, so chance cannot lose a burst.
    """
    cumulative = [0.0]
    for weight in weights:
        cumulative.append(cumulative[-1] + weight)
    slot_s = seconds / len(weights)
    return [_time_of((k + rng.random()) / count * cumulative[-1], cumulative) * slot_s for k in range(count)]


def _time_of(level: float, cumulative: Sequence[float]) -> float:
    """The position, in slots, at which the cumulative weight reaches `level`."""
    slot = min(bisect.bisect_right(cumulative, level) - 1, len(cumulative) - 2)
    weight = cumulative[slot + 1] - cumulative[slot]
    return slot + min((level - cumulative[slot]) / weight if weight else 0.0, 0.999999)


def _slot_weights(rng: random.Random) -> list[float]:
    """Donations per slot: the drive's slope with noise, and one decaying burst."""
    weights = []
    for slot in range(SLOTS):
        part = slot / SLOTS
        noise = math.exp(rng.gauss(0.0, 0.35))
        since = part - BURST_AT
        burst = BURST_HEIGHT * math.exp(-since / BURST_DECAY) if since >= 0 else 0.0
        weights.append(_slope(part * DRIVE_HOURS) * noise + burst * 155_065 / DRIVE_HOURS)
    return weights


def _slope(hour: float) -> float:
    """Donors per hour at `hour` of the drive."""
    for (before, donors), (after, more) in itertools.pairwise(DONORS_BY_HOUR):
        if hour < after:
            return (more - donors) / (after - before)
    return 0.0


def gift_size(rng: random.Random) -> int:
    """Cents of one donation: 98.8 % lognormal (median $20, sigma 1.05), mostly menu amounts; 1.2 % Pareto."""
    if rng.random() < _PARETO_SHARE:
        return min(round(50_000 * rng.paretovariate(1.3) / 1_000) * 1_000, LARGEST_GIFT_CENTS)
    cents = rng.lognormvariate(math.log(2_000), 1.05)
    if rng.random() < _SNAPPED_SHARE:
        return min(_MENU_CENTS, key=lambda choice: abs(math.log(choice / cents)))
    odd_cents = rng.random() < 0.2
    return max(100, round(cents) if odd_cents else round(cents / 100) * 100)


def _institutions(gifts: int) -> dict[int, int]:
    """Positions and cents of the institutions' donations, late in the drive; a short curve has only one."""
    places = {int(gifts * 0.7): INSTITUTION_GIFT_CENTS} if gifts else {}
    if gifts < 200:
        return places
    rest = INSTITUTIONS_TOTAL_CENTS - INSTITUTION_GIFT_CENTS
    others = INSTITUTIONS - 1
    harmonic = sum(1 / rank for rank in range(1, others + 1))
    for rank in range(1, others + 1):
        thousands = round(rest / rank / harmonic / 100_000)
        places[int(gifts * (0.55 + 0.4 * rank / INSTITUTIONS)) + 1] = thousands * 100_000
    return places
