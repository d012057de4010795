"""The figures: what each measures, its unit, its aim on two cores, and its floor.

A floor is the cheapest program that could do the same work, measured in the same run, so that the ratio of
a figure to its floor says something on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

GROUPS: Final = (
    "donations",
    "freshness",
    "reads",
    "intake",
    "fanout",
    "catchup",
    "growth",
    "memory",
)
"""What `--only` accepts, the most important first; a group is measured together."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One figure. `aim` is a minimum, or a maximum where `lower_is_better`."""

    name: str
    group: str
    what: str
    unit: str
    aim: float
    floor: str = ""
    lower_is_better: bool = False

    def is_reached(self, value: float) -> bool:
        """Whether `value` meets the aim."""
        return value <= self.aim if self.lower_is_better else value >= self.aim


_DONATIONS_FLOOR: Final = "the donors' HTTP requests, answered at once by a bare asyncio server"
_HOP: Final = "p99 of one hop through the bus at the same rate"
_HELLO: Final = "uvicorn with a raw ASGI hello"
_BARE_ROUTE: Final = "a bare FastAPI route that validates the same body"
_DECODING: Final = "reading and decoding the same log, nothing else"
_BARE_STREAM: Final = "the same bytes to as many clients from a bare asyncio server"


def _lower(name: str, group: str, what: str, unit: str, aim: float, floor: str = "") -> Spec:
    return Spec(name, group, what, unit, aim, floor, lower_is_better=True)


_ALL: Final = (
    Spec("donations", "donations", "whole donations, embedded", "donations/s", 350, _DONATIONS_FLOOR),
    Spec("donations_stack", "donations", "whole donations, stack", "donations/s", 200, _DONATIONS_FLOOR),
    _lower("freshness", "freshness", "webhook to frame at 40/s, p99, embedded", "ms", 120, _HOP),
    _lower("freshness_stack", "freshness", "webhook to frame at 40/s, p99, stack", "ms", 250, _HOP),
    _lower("freshness_150", "freshness", "webhook to frame at 150/s, p99, embedded", "ms", 400),
    _lower("freshness_150_stack", "freshness", "webhook to frame at 150/s, p99, stack", "ms", 800),
    Spec("reads", "reads", "totals of one gateway process, full body", "reads/s", 25_000, _HELLO),
    Spec("reads_etag", "reads", "totals of one gateway process, ETag matches", "reads/s", 25_000, _HELLO),
    Spec("intake", "intake", "pledges, 128 connections, SQLite", "pledges/s", 1_500, _BARE_ROUTE),
    Spec("intake_stack", "intake", "pledges, 128 connections, PostgreSQL", "pledges/s", 1_500, _BARE_ROUTE),
    _lower("fanout", "fanout", "CPU a frame sent to one of many clients", "µs", 18, _BARE_STREAM),
    _lower("fanout_memory", "fanout", "gateway memory a streaming client", "KiB", 10, _BARE_STREAM),
    _lower("fanout_delay", "fanout", "snapshot to frame under many clients, p99", "ms", 500, _BARE_STREAM),
    Spec("catchup", "catchup", "leaderboard from the log, SQLite", "events/s", 20_000, _DECODING),
    Spec("catchup_stack", "catchup", "leaderboard from the log, stack", "events/s", 20_000, _DECODING),
    _lower("growth", "growth", "CPU a donation with many stored, to that with few", "×", 1.15),
    _lower("memory", "memory", "largest process in a surge with many donors, embedded", "MB", 250),
    _lower("memory_stack", "memory", "largest service in a surge with many donors, stack", "MB", 250),
)

_OVERLOAD: Final = (
    Spec("overload", "overload", "pledges accepted under overload, to the peak without", "×", 0.8),
    _lower("overload_p99", "overload", "pledge accepted under overload, p99", "ms", 2_500),
    _lower("overload_totals", "overload", "totals on a new connection under overload, p99", "ms", 1_000),
    _lower("overload_lost", "overload", "pledges accepted under overload and not listed later", "", 0),
    _lower("overload_recovery", "overload", "end of overload until nothing gives way", "s", 30),
)
OVERLOAD: Final[Mapping[str, Spec]] = {
    spec.name: spec
    for one in _OVERLOAD
    for spec in (replace(one, what=f"{one.what}, embedded"),
                 replace(one, name=f"{one.name}_stack", what=f"{one.what}, stack"))
}  # fmt: skip
"""The figures of `python -m bench overload`, which has a results file of its own."""

SPECS: Final[Mapping[str, Spec]] = {spec.name: spec for spec in _ALL}
"""All figures by name; names without a suffix are of the embedded run or of a single process."""


EVERY: Final[Mapping[str, Spec]] = {**SPECS, **OVERLOAD}


def names_of(groups: Iterable[str]) -> list[str]:
    """The figures of `groups`, in the order of the table."""
    wanted = frozenset(groups)
    return [spec.name for spec in _ALL if spec.group in wanted]
