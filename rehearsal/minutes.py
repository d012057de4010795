"""Which minutes a rehearsal replays, how many times larger and how many times faster."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rehearsal import recording
from rehearsal.curve import Plan
from rehearsal.recording import Minute

BURST_GIFTS: Final = (56, 540, 570, 545, 520, 500, 485, 470, 450, 430, 410, 400)
"""Donations a minute of AGDQ 2019's burst, the first of them before it: 400 to 570 for ten minutes."""
_DECAY_MINUTES: Final = 20
_USUAL_GIFTS: Final = 56
_MEAN_CENTS: Final = (1_100, 3_100)
"""The mean of a donation in the burst; it was 50 dollars before."""


@dataclass(frozen=True, slots=True)
class Replay:
    """How the minutes are replayed: `times` as many donations, in a `faster`-th of the time."""

    minutes: int
    times: float
    faster: float


def burst(seed: int = 2019) -> list[Minute]:
    """AGDQ 2019's burst by its published figures: a minute before it, eleven in it, twenty of decay."""
    rng = random.Random(seed)  # noqa: S311 - a script, not a secret
    last = BURST_GIFTS[-1]
    decay = [
        round(last - (last - _USUAL_GIFTS) * minute / _DECAY_MINUTES)
        for minute in range(1, _DECAY_MINUTES + 1)
    ]
    gifts = [*BURST_GIFTS, *decay]
    return [
        Minute(at, count, count * (5_000 if at == 0 else rng.randint(*_MEAN_CENTS)))
        for at, count in enumerate(gifts)
    ]


def busiest(minutes: Sequence[Minute], length: int) -> list[Minute]:
    """The `length` consecutive minutes with the most donations, counted from 0."""
    best, most, first, held = 0, 0, 0, 0
    for minute in minutes:
        held += minute.gifts
        while minute.at_min - minutes[first].at_min >= length:
            held -= minutes[first].gifts
            first += 1
        if held > most:
            best, most = first, held
    start = minutes[best].at_min
    chosen = (minute for minute in minutes if start <= minute.at_min < start + length)
    return [replace(minute, at_min=minute.at_min - start) for minute in chosen]


def plan_of(file: Path | None, replay: Replay, seed: int) -> tuple[Plan, float]:
    """The plan, and the seconds it takes. Raises recording.BadRecording."""
    minutes = busiest(burst() if file is None else recording.read(file), replay.minutes)
    name = "the burst of AGDQ 2019" if file is None else file.name
    gifts = max(1, round(sum(minute.gifts for minute in minutes) * replay.times))
    seconds = (minutes[-1].at_min + 1) * 60 / replay.faster
    title = f"the busiest {replay.minutes} minutes of {name}, {replay.times:g} times"
    return recording.replay(title, minutes, gifts, seconds, seed), seconds
