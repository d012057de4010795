"""What the console draws of a drive's recent gifts, from rows of its log. Amounts are minor units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from backbone.money import parse

MAX_MINUTES: Final = 30
MAX_SIZES: Final = 8

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """One value of a chart: `per_mille` of the largest one, for drawing only."""

    value: int
    per_mille: int
    start: datetime | int


def money_by_minute(rows: Sequence[Row], currency: str, now: datetime) -> list[Bar]:
    """What was given in each of the last minutes, the oldest first, up to the one that has begun.

    The minute of the first row is left out, since rows of it may be missing, unless the log begins with it.
    """
    gifts = _gifts(rows)
    if not gifts:
        return []
    last = _minute(now)
    earliest = last - timedelta(minutes=MAX_MINUTES - 1)
    begun = _minute(_at(rows[0]))
    if rows[0]["sequence"] > 1:
        begun += timedelta(minutes=1)
    sums: Counter[datetime] = Counter()
    for gift in gifts:
        sums[_minute(_at(gift))] += parse(gift["amount"]["value"], currency)
    first = max(begun, earliest)
    minutes = max(0, int((last - first) / timedelta(minutes=1)) + 1)
    return _bars([(first + timedelta(minutes=n), sums[first + timedelta(minutes=n)]) for n in range(minutes)])


def gift_sizes(rows: Sequence[Row], currency: str) -> list[Bar]:
    """How many gifts there are from each of the steps 1, 2, 5, 10, 20, 50, … up to the next one.

    Past `MAX_SIZES` steps the smallest ones are counted together.
    """
    found: Counter[int] = Counter(_step(parse(gift["amount"]["value"], currency)) for gift in _gifts(rows))
    steps = sorted(found)
    for step in steps[: max(0, len(steps) - MAX_SIZES)]:
        lowest = steps[len(steps) - MAX_SIZES]
        found[lowest] += found.pop(step)
    return _bars(sorted(found.items()))


def by_source(places: Sequence[Mapping[str, Any]], currency: str) -> list[tuple[str, int, Bar]]:
    """The name, the number of gifts and the bar of each source of the board."""
    bars = _bars([(place["rank"], parse(place["raised"]["value"], currency)) for place in places])
    named = [" / ".join(filter(None, (place["platform"], place["campaign"]))) for place in places]
    gifts = [place["donations"] for place in places]
    return list(zip(named, gifts, bars, strict=True))


def _gifts(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["type"] == "donation.counted" and row["amount"]]


def _at(row: Row) -> datetime:
    return datetime.fromisoformat(row["at"])


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _step(amount: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … that is not above `amount`."""
    power: int = 10 ** (len(str(max(1, amount))) - 1)
    return max(step * power for step in (1, 2, 5) if step * power <= max(1, amount))


def _bars(values: Sequence[tuple[Any, int]]) -> list[Bar]:
    highest = max((value for _, value in values), default=0)
    return [Bar(value, value * 1000 // highest if highest > 0 else 0, start) for start, value in values]
